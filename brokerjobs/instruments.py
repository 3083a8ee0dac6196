"""Counters, levels and timings of what happens with each job: kept by one thread, read by another.

The Prometheus client's own take a lock for each change and look at each value, which together cost a tenth of all that
a worker does for a small job. Here a change is an addition; what it became is told when Prometheus asks.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Generic, Literal, Protocol, TypeVar

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

Merge = Literal["sum", "max", "min", "earliest"]
"""How the levels of several processes become one; `earliest` is the least that is not 0."""


class Number:
    """One series of a counter or a level; only the thread that runs the jobs changes it."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def inc(self, by: float = 1) -> None:
        self.value += by

    def set(self, value: float) -> None:
        self.value = value


class Reading:
    """One series of a level that nobody keeps: it is read where it is, when Prometheus asks.

    Args:
        read: gives the value; called by any thread.
    """

    __slots__ = ("_read",)

    def __init__(self, read: Callable[[], float]) -> None:
        self._read = read

    @property
    def value(self) -> float:
        return self._read()


class Stopwatch:
    """One series of time that something has lasted, what lasts now included."""

    __slots__ = ("_clock", "_going_on", "_state")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._going_on = 0
        self._state: tuple[float, float | None] = 0.0, None  # seconds before, and since when

    def begin(self) -> None:
        """One more lasts; they count once while any of them does."""
        self._going_on += 1
        if self._going_on == 1:
            self._state = self._state[0], self._clock()

    def end(self) -> None:
        """One of those lasts no more."""
        self._going_on -= 1
        if not self._going_on:
            self._state = self.value, None

    @property
    def value(self) -> float:
        before, since = self._state
        return before if since is None else before + self._clock() - since


class Timing:
    """One series of timings, or of other amounts, likewise.

    Args:
        bounds: of the buckets, rising; one more has no bound.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class _HasValue(Protocol):
    @property
    def value(self) -> float: ...


SeriesT = TypeVar("SeriesT")
ValueT = TypeVar("ValueT", bound=_HasValue)


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

    def forget(self, *values: str) -> None:
        """Tell the series of these values no more, until it is made anew."""
        self._series.pop(values, None)

    def _new(self) -> SeriesT:
        raise NotImplementedError

    def describe(self) -> Iterable[Metric]:
        return self.collect()


class _Numbers(_Instrument[ValueT]):
    def collect(self) -> Iterator[Metric]:
        family = self._family()
        for values, series in list(self._series.items()):
            family.add_metric(values, series.value)
        yield family

    def _family(self) -> CounterMetricFamily | GaugeMetricFamily:
        return CounterMetricFamily(*self._about, labels=self._labels)


class Tally(_Numbers[Number]):
    """What only grows."""

    def _new(self) -> Number:
        return Number()


class Lasting(_Numbers[Stopwatch]):
    """For how long something was so, all times together."""

    def _new(self) -> Stopwatch:
        return Stopwatch()


class Level(_Numbers[Number]):
    """What rises and falls.

    Args:
        name, documentation, labels, registry: as everywhere.
        merge: what those of several processes are together.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str],
        registry: CollectorRegistry,
        merge: Merge,
    ) -> None:
        self._merge = merge
        super().__init__(name, documentation, labels, registry)

    def _new(self) -> Number:
        return Number()

    def follow(self, read: Callable[[], float], *values: str) -> None:
        """Read the series of these values from now on, instead of keeping it."""
        self._series[values] = Reading(read)  # type: ignore[assignment]

    def _family(self) -> MergedGauge:
        return MergedGauge(*self._about, labels=self._labels, merge=self._merge)


class MergedGauge(GaugeMetricFamily):
    """A gauge that says what those of several processes are together."""

    def __init__(self, name: str, documentation: str, *, labels: Sequence[str], merge: Merge) -> None:
        super().__init__(name, documentation, labels=labels)
        self.merge = merge


class Timings(_Instrument[Timing]):
    """How long things took, or how much of them there was, in buckets.

    Args:
        name, documentation, labels, registry: as everywhere.
        buckets: their bounds, in the unit of the name.
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
