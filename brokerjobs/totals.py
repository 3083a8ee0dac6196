"""Metrics of several processes as one: each tells what has changed, one of them adds up and serves.

Counters and histograms outlive the process that counted, so a sum never goes backwards; gauges end with theirs, and
each says by itself what several of it are together.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from brokerjobs.metrics import FAILURES, Exceptions

# A family: its name, type, description and merge, and its samples: name, labels and value of each, None when gone.
Sample = tuple[str, Sequence[Sequence[str]], float | None]
Family = tuple[str, str, str, str, Sequence[Sample]]
Changes = Sequence[Family]

_Key = tuple[str, tuple[tuple[str, str], ...]]
_Samples = dict[_Key, float]


def _earliest(values: Iterable[float]) -> float:
    return min((value for value in values if value), default=0.0)


_MERGES: Mapping[str, Callable[[Iterable[float]], float]] = {
    "sum": sum,
    "max": max,
    "min": min,
    "earliest": _earliest,
}


class Teller:
    """Tells what has changed in a registry since it was last asked.

    Args:
        registry: whose metrics.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._told: dict[str, _Samples] = {}

    def changes(self) -> Changes:
        found = []
        for family in self._registry.collect():
            told = self._told.get(family.name, {})
            now = self._told[family.name] = {
                (sample.name, tuple(sample.labels.items())): sample.value
                for sample in family.samples
                if not sample.name.endswith("_created")
            }
            samples: list[Sample] = [(*key, value) for key, value in now.items() if told.get(key) != value]
            samples += [(*key, None) for key in told if key not in now]
            if samples:
                merge = getattr(family, "merge", "sum")
                found.append((family.name, family.type, family.documentation, merge, samples))
        return found


@dataclass(frozen=True, slots=True)
class _About:
    type: str
    documentation: str
    merge: Callable[[Iterable[float]], float]


class Totals(Collector):
    """What all that tell are together; a collector for a registry that is served."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # Prometheus is answered by a thread
        self._families: dict[str, _About] = {}
        self._living: dict[Hashable, dict[str, _Samples]] = {}
        self._ended: dict[str, _Samples] = {}
        self._exceptions = Exceptions()

    def take(self, source: Hashable, changes: Changes) -> None:
        """Note what a source tells."""
        with self._lock:
            told = self._living.setdefault(source, {})
            for name, type_, documentation, merge, samples in changes:
                self._families[name] = _About(type_, documentation, _MERGES.get(merge, sum))
                family = told.setdefault(name, {})
                for sample, labels, value in samples:
                    key = sample, tuple((label, text) for label, text in labels)
                    if value is None:
                        family.pop(key, None)
                    else:
                        family[key] = value

    def end(self, source: Hashable) -> None:
        """This source tells nothing any more: its counts stay."""
        with self._lock:
            for name, samples in self._living.pop(source, {}).items():
                if self._families[name].type != "gauge":
                    both = (self._ended.get(name, {}), samples)
                    self._ended[name] = self._merged(name, both)

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            families = dict(self._families)
            merged = {
                name: self._merged(
                    name, (family[name] for family in (self._ended, *self._living.values()) if name in family)
                )
                for name in families
            }
        for name, about in families.items():
            metric = Metric(name, about.documentation, about.type)
            for (sample, labels), value in merged[name].items():
                metric.add_sample(sample, dict(labels), value)
            yield metric

    def _merged(self, name: str, several: Iterable[_Samples]) -> _Samples:
        values: dict[_Key, list[float]] = {}
        for samples in several:
            for key, value in samples.items():
                values.setdefault(self._bounded(key) if name == FAILURES else key, []).append(value)
        merge = self._families[name].merge
        return {key: merge(found) for key, found in values.items()}

    def _bounded(self, key: _Key) -> _Key:
        """Each process tells the first exceptions by their names, and processes come and go."""
        sample, labels = key
        named = self._exceptions.named
        return sample, tuple((label, named(text) if label == "exception" else text) for label, text in labels)


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
