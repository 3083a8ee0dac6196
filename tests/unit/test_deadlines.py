"""Many deadlines, one timer: who is late is called back, once and in time, and nobody else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from brokerjobs.executor import deadlines as module
from brokerjobs.executor.deadlines import Deadlines


class Clock:
    """A clock and a loop that are moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.set = 0  # timers, ever

    def monotonic(self) -> float:
        return self.now

    def call_later(self, delay: float, call: Callable[[], None]) -> None:
        self.set += 1
        self.timers.append((self.now + delay, call))

    def move(self, seconds: float) -> None:
        self.now += seconds
        due = [call for at, call in self.timers if at <= self.now]
        self.timers = [(at, call) for at, call in self.timers if at > self.now]
        for call in due:
            call()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def deadlines(clock: Clock) -> Deadlines:
    return Deadlines(10.0, clock)  # type: ignore[arg-type]


def test_each_is_called_back_after_its_own_time(clock: Clock, deadlines: Deadlines) -> None:
    late: list[tuple[str, float]] = []
    for name in "a", "b", "c":
        deadlines.begin(lambda name=name: late.append((name, clock.now)))  # type: ignore[misc]
        clock.move(3.0)

    for _ in range(20):
        clock.move(1.0)

    assert late == [("a", 1010.0), ("b", 1013.0), ("c", 1016.0)]


def test_what_ended_in_time_is_not_called_back_and_holds_up_nobody(
    clock: Clock, deadlines: Deadlines
) -> None:
    late: list[str] = []
    first, second = partial(late.append, "first"), partial(late.append, "second")
    deadlines.begin(first)
    clock.move(4.0)
    deadlines.begin(second)
    deadlines.end(first)

    clock.move(6.0)
    assert late == []
    clock.move(3.9)
    assert late == []
    clock.move(0.1)
    assert late == ["second"]
    deadlines.end(second)  # as whoever was called back does


def test_one_timer_serves_all(clock: Clock, deadlines: Deadlines) -> None:
    for _ in range(1000):
        call = partial(pytest.fail, "it has ended")
        deadlines.begin(call)
        deadlines.end(call)
        clock.move(0.009)
    assert clock.set == 1

    clock.move(10.0)
    assert clock.timers == []  # nothing to wait for


def test_timer_is_set_anew_after_a_rest(clock: Clock, deadlines: Deadlines) -> None:
    late: list[float] = []
    for _ in range(2):
        deadlines.begin(lambda: late.append(clock.now))
        clock.move(10.0)
        clock.move(90.0)

    assert late == [1010.0, 1110.0]
