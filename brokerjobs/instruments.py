"""Counters, levels and timings of what happens with each job: kept by one thread, read by another.

The Prometheus client's own take a lock for each change and look at each value, which together cost a tenth of all that
a worker does for a small job. Here a change is an addition; what it became is told when Prometheus asks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import ClassVar, Generic, TypeVar

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Number:
    """One series of a counter or a level; only the thread that runs the jobs changes it."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, by: int = 1) -> None:
        self.value += by


class Timing:
    """One series of timings, likewise.

    Args:
        bounds: of the buckets, in seconds, rising; one more has no bound.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds


SeriesT = TypeVar("SeriesT", Number, Timing)


class _Instrument(Collector, Generic[SeriesT]):
    def __init__(
        self, name: str, documentation: str, labels: Sequence[str], registry: CollectorRegistry
    ) -> None:
        self._about = name, documentation
        self._labels = labels
        self._series: dict[tuple[str, ...], SeriesT] = {}
        registry.register(self)

    def labels(self, *values: str) -> SeriesT:
        """The series of these values, made when they are new."""
        if (series := self._series.get(values)) is None:
            series = self._series[values] = self._new()
        return series

    def _new(self) -> SeriesT:
        raise NotImplementedError

    def describe(self) -> Iterable[Metric]:
        return self.collect()


class _Numbers(_Instrument[Number]):
    family: ClassVar[type[CounterMetricFamily | GaugeMetricFamily]]

    def _new(self) -> Number:
        return Number()

    def collect(self) -> Iterator[Metric]:
        family = self.family(*self._about, labels=self._labels)
        for values, series in list(self._series.items()):
            family.add_metric(values, series.value)
        yield family


class Tally(_Numbers):
    """What only grows."""

    family = CounterMetricFamily


class Level(_Numbers):
    """What rises and falls."""

    family = GaugeMetricFamily


class Timings(_Instrument[Timing]):
    """How long things took, in buckets.

    Args:
        name, documentation, labels, registry: as everywhere.
        buckets: their bounds, in seconds.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        registry: CollectorRegistry,
        buckets: Sequence[float],
    ) -> None:
        self._buckets = tuple(buckets)
        super().__init__(name, documentation, labels, registry)

    def _new(self) -> Timing:
        return Timing(self._buckets)

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(*self._about, labels=self._labels)
        bounds = [*map(floatToGoString, self._buckets), "+Inf"]
        for values, series in list(self._series.items()):
            family.add_metric(values, list(zip(bounds, accumulate(series.counts), strict=True)), series.sum)
        yield family
