from __future__ import annotations

import asyncio
import time

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from brokerjobs import loop_lag
from brokerjobs.instruments import Lasting, Level, Stopwatch, Timings
from brokerjobs.loop_lag import KEPT, LoopLag
from tests.waiting import eventually_async


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += seconds


def test_time_counts_while_it_lasts_and_no_longer() -> None:
    clock = Clock()
    watch = Stopwatch(clock)
    assert watch.value == 0

    watch.begin()
    clock.forward(3)
    assert watch.value == 3  # it goes on
    clock.forward(2)
    watch.end()
    clock.forward(100)
    assert watch.value == 5

    watch.begin()
    clock.forward(1)
    assert watch.value == 6


def test_what_lasts_twice_at_once_counts_once() -> None:
    clock = Clock()
    watch = Stopwatch(clock)

    for change in (watch.begin, watch.begin, watch.end):
        change()
        clock.forward(2)
    watch.end()
    clock.forward(2)

    assert watch.value == 6


def test_lasting_time_is_a_counter() -> None:
    registry = CollectorRegistry()
    lasting = Lasting("blocked_seconds", "For how long.", ["role"], registry)

    lasting.labels("consumer").begin()

    [family] = registry.collect()
    assert (family.type, [sample.name for sample in family.samples]) == ("counter", ["blocked_seconds_total"])
    assert (registry.get_sample_value("blocked_seconds_total", {"role": "consumer"}) or 0) > 0


def test_level_is_kept_or_read_when_it_is_asked_for() -> None:
    registry, found = CollectorRegistry(), [3.0]
    level = Level("depth", "How much.", ["queue"], registry, "max")
    level.labels("kept").set(7)
    level.follow(lambda: found[0], "read")

    found[0] = 4.0

    values = [registry.get_sample_value("depth", {"queue": queue}) for queue in ("kept", "read")]
    assert values == [7, 4]


def test_amounts_fall_into_the_first_bucket_that_holds_them() -> None:
    registry = CollectorRegistry()
    timings = Timings("attempts", "How many.", [], registry, (1, 2, 3, 5))

    for amount in (1, 2, 4, 5, 6):
        timings.labels().observe(amount)

    upto = [
        registry.get_sample_value("attempts_bucket", {"le": le})
        for le in ("1.0", "2.0", "3.0", "5.0", "+Inf")
    ]
    assert upto == [1, 2, 2, 4, 5]
    assert registry.get_sample_value("attempts_sum") == 18


# -- how late the loop is


def test_lag_is_what_it_is_late_by() -> None:
    clock = Clock()
    lag = LoopLag(clock)
    assert lag.read() == 0

    for late in (0.0, 0.5, 0.25):
        lag.expect(1)
        clock.forward(1 + late)
        assert lag.looked() == late

    assert lag.read() == 0.5


def test_lag_shows_while_the_loop_stands() -> None:
    clock = Clock()
    lag = LoopLag(clock)
    lag.expect(1)

    clock.forward(9)

    assert lag.read() == 8


def test_lag_is_forgotten_and_none_when_nobody_looks() -> None:
    clock = Clock()
    lag = LoopLag(clock)
    for late in (2.0, *[0.0] * KEPT):
        assert lag.read() == (2.0 if late != 2.0 else 0.0)
        lag.expect(1)
        clock.forward(1 + late)
        lag.looked()
    assert lag.read() == 0

    lag.expect(1)
    lag.stop()
    clock.forward(60)
    assert lag.read() == 0


async def test_a_loop_that_was_held_up_is_told_and_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_lag, "LOOK", 0.01)
    monkeypatch.setattr(loop_lag, "MOST", 0.2)
    monkeypatch.setattr(loop_lag, "KEPT", 10_000)  # or it may be forgotten before this test is in turn
    lag = LoopLag()
    with capture_logs() as lines:
        minding = asyncio.create_task(lag.mind())
        await eventually_async(lambda: lag.is_expecting)
        hold_up(0.3)
        assert lag.read() > 0.2
        await eventually_async(lambda: bool(lines))
        assert lag.read() > 0.2
    assert lines[0]["event"] == "event loop blocked"
    assert lines[0]["seconds"] >= 0.2

    minding.cancel()
    await asyncio.wait({minding})
    assert not lag.is_expecting


def hold_up(seconds: float) -> None:
    """As a job that computes."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
