"""Metrics of several processes as one: each tells what has changed, one of them adds up and serves.

Counters and histograms outlive the process that counted, so a sum never goes backwards; gauges end with theirs.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Iterator, Sequence
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from brokerjobs.metrics import serve

# A family: its name, type and description, and its samples: name, labels and value of each.
Sample = tuple[str, Sequence[Sequence[str]], float]
Family = tuple[str, str, str, Sequence[Sample]]
Changes = Sequence[Family]

_Key = tuple[str, tuple[tuple[str, str], ...]]
_Samples = dict[_Key, float]


class Teller:
    """Tells what has changed in a registry since it was last asked.

    Args:
        registry: whose metrics.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._told: _Samples = {}

    def changes(self) -> Changes:
        found = []
        for family in self._registry.collect():
            samples = []
            for sample in family.samples:
                labels = tuple(sample.labels.items())
                if self._told.get((sample.name, labels)) == sample.value or sample.name.endswith("_created"):
                    continue
                self._told[sample.name, labels] = sample.value
                samples.append((sample.name, labels, sample.value))
            if samples:
                found.append((family.name, family.type, family.documentation, samples))
        return found


class Totals(Collector):
    """The sums over all that tell; a collector for a registry that is served."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # Prometheus is answered by a thread
        self._families: dict[str, tuple[str, str]] = {}
        self._living: dict[Hashable, dict[str, _Samples]] = {}
        self._ended: dict[str, _Samples] = {}

    def take(self, source: Hashable, changes: Changes) -> None:
        """Note what a source tells."""
        with self._lock:
            told = self._living.setdefault(source, {})
            for name, type_, documentation, samples in changes:
                self._families[name] = (type_, documentation)
                family = told.setdefault(name, {})
                for sample, labels, value in samples:
                    family[sample, tuple((label, text) for label, text in labels)] = value

    def end(self, source: Hashable) -> None:
        """This source tells nothing any more: its counts stay."""
        with self._lock:
            for name, samples in self._living.pop(source, {}).items():
                if self._families[name][0] != "gauge":
                    _add(self._ended.setdefault(name, {}), samples)

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            families = dict(self._families)
            sums = {
                name: _sum(family[name] for family in (self._ended, *self._living.values()) if name in family)
                for name in families
            }
        for name, (type_, documentation) in families.items():
            metric = Metric(name, documentation, type_)
            for (sample, labels), value in sums[name].items():
                metric.add_sample(sample, dict(labels), value)
            yield metric

    def serve(self, host: str, port: int) -> WSGIServer:
        """Serve `/metrics` of the sums.

        Raises:
            ConfigurationError: when the port is taken or not ours to use.
        """
        registry = CollectorRegistry()
        registry.register(self)
        return serve(registry, host, port)


def total(instrument: Collector) -> int:
    """The sum over all labels."""
    return int(
        sum(
            sample.value
            for family in instrument.collect()
            for sample in family.samples
            if not sample.name.endswith("_created")
        )
    )


def _sum(several: Iterable[_Samples]) -> _Samples:
    result: _Samples = {}
    for samples in several:
        _add(result, samples)
    return result


def _add(to: _Samples, samples: _Samples) -> None:
    for key, value in samples.items():
        to[key] = to.get(key, 0.0) + value
