"""How queues move between looks, and which word says how they stand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from brokerjobs.inspection import Counts, Course, Flow, Look, standings
from brokerjobs.inspection.course import drain, flow
from brokerjobs.worker_state import WorkerState
from tests.unit.looks import NOW, counts, job, look, work, worker

THEN = NOW - 10


def moved(
    before: tuple[int | None, Sequence[WorkerState]],
    now: tuple[int | None, Sequence[WorkerState]],
    **more: Any,
) -> Flow:
    """The flow of a queue that had so many ready and these workers, and has so many and these 10 s later."""
    then = look(THEN, [counts(ready=before[0])], before[1])
    seen = counts(ready=now[0], **{"consumers": len(now[1]), **more})
    return flow(look(NOW, [seen], now[1]), then, seen)


def did(*received: int, **more: Any) -> list[WorkerState]:
    """Workers that have done so much."""
    return [worker(f"host:{n}", {"emails": work(count, **more)}) for n, count in enumerate(received)]


@pytest.mark.parametrize(
    ("before", "now", "arrivals", "done"),
    [
        ((0, did(0)), (0, did(0)), 0.0, 0.0),
        ((0, did(5)), (0, did(25)), 2.0, 2.0),  # each was done as it came
        ((50, did(5)), (30, did(25)), 0.0, 2.0),  # a backlog, and nothing new
        ((50, did(5)), (50, did(25)), 2.0, 2.0),  # as many came as were done
        ((50, did(5, 7)), (150, did(25, 37)), 15.0, 5.0),
        ((50, did(5)), (0, did(5, unstarted=50)), 0.0, 0.0),  # held by a worker, which has not begun
        ((50, did(5)), (45, []), 0.0, 0.0),  # somebody else took them, or dropped them
        ((50, did(5)), (70, []), 2.0, 0.0),  # nobody works any more
        ((50, did(5, unstarted=20)), (70, []), 0.0, 0.0),  # what the worker had held came back
    ],
)
def test_rates_are_what_happened_between_two_looks(
    before: tuple[int, list[WorkerState]], now: tuple[int, list[WorkerState]], arrivals: float, done: float
) -> None:
    found = moved(before, now)

    assert (found.arrivals, found.done) == (arrivals, done)


def test_what_was_given_back_is_not_done_and_what_failed_is_told() -> None:
    finished = {"succeeded": 10, "retried": 4, "dead": 1, "released": 30}

    found = moved((0, did(0)), (0, did(45, finished=finished)))

    assert (found.done, found.failed) == (1.5, 0.5)


def test_worker_that_has_started_meanwhile_counts_from_nothing() -> None:
    fresh = worker("host:9", {"emails": work(20)}, since=THEN + 1)

    assert moved((0, []), (0, [fresh])).done == 2.0


def test_worker_that_started_anew_under_its_old_name_counts_from_nothing() -> None:
    fresh = worker("host:0", {"emails": work(20)}, since=THEN + 1)

    assert moved((0, did(1000)), (0, [fresh])).done == 2.0


def test_worker_that_was_not_heard_before_adds_nothing_yet() -> None:
    assert moved((0, []), (0, did(1000))).done == 0.0


@pytest.mark.parametrize(
    ("before", "now", "more"),
    [
        ((0, did(1)), (0, [replace(worker(), work={})]), {}),  # an older worker does not tell
        ((0, did(1)), (0, did(1)), {"consumers": 2}),  # somebody consumes who has not answered
        ((None, did(1)), (0, did(1)), {}),  # it was not declared then
        ((0, did(1)), (None, did(1)), {}),
    ],
)
def test_rates_that_nobody_knows_are_not_told(before: Any, now: Any, more: dict[str, Any]) -> None:
    found = moved(before, now, **more)

    assert (found.arrivals, found.done, found.failed, found.drain) == (None, None, None, None)


def test_one_look_has_no_rates() -> None:
    found = Course().take(look(workers=did(5)))["emails"]

    assert (found.arrivals, found.done, found.drain) == (None, None, None)
    assert (found.running, found.slots, found.oldest) == (0, 10, 0.0)


@pytest.mark.parametrize(
    ("ready", "done", "seconds"), [(0, 0.0, 0.0), (0, 5.0, 0.0), (10, 5.0, 2.0), (10, 0.0, math.inf)]
)
def test_seconds_to_drain(ready: int, done: float, seconds: float) -> None:
    assert drain(ready, done) == seconds


# -- the age of the oldest


@pytest.mark.parametrize(
    ("ready", "started", "empty_at", "oldest"),
    [
        (0, [(NOW - 100, NOW - 50)], None, 0.0),
        (None, [], None, None),
        (3, [], None, None),  # nobody knows
        (3, [(0.0, 0.0)], None, None),  # a worker that has started nothing
        (3, [(NOW - 100, NOW - 50)], None, 100.0),
        (3, [(NOW - 100, NOW - 50), (NOW - 20, NOW - 9)], None, 20.0),  # the one started last
        (3, [(NOW - 100, NOW - 50), (NOW - 200, NOW - 9)], None, 200.0),
        (3, [(NOW - 100, NOW - 50)], NOW - 4, 4.0),  # it came after the queue was empty
        (3, [(NOW - 2, NOW - 1)], NOW - 4, 2.0),
        (3, [(NOW + 60, NOW - 1)], None, 0.0),  # the clock of its publisher is ahead
    ],
)
def test_oldest_waits_since_the_last_start_at_most(
    ready: int | None, started: list[tuple[float, float]], empty_at: float | None, oldest: float | None
) -> None:
    states = [
        worker(f"host:{n}", {"emails": work(due=due, began=began)}) for n, (due, began) in enumerate(started)
    ]
    seen = counts(ready=ready)

    assert flow(look(NOW, [seen], states), None, seen, empty_at).oldest == oldest


def test_course_remembers_when_a_queue_was_empty() -> None:
    course = Course()
    course.take(look(NOW, [counts(ready=0)]))

    assert course.take(look(NOW + 2, [counts(ready=5)]))["emails"].oldest == 2.0
    assert course.take(look(NOW + 4, [counts(ready=5)]))["emails"].oldest == 4.0


# -- the window


def test_course_takes_rates_over_its_window() -> None:
    course = Course(window=10.0)
    for second in range(0, 40, 2):
        done = 0 if second < 20 else 2 * (second - 20)  # 2 a second from the 20th on
        found = course.take(look(NOW + second, workers=did(done)))["emails"].done
        if second == 24:
            assert found == pytest.approx(8 / 10)
    assert found == 2.0


def test_course_of_rare_looks_takes_the_last_two() -> None:
    course = Course(window=10.0)
    course.take(look(NOW, workers=did(0)))
    course.take(look(NOW + 60, workers=did(60)))

    assert course.take(look(NOW + 120, workers=did(180)))["emails"].done == 2.0


# -- how a queue stands


def word(seen: Counts, found: Flow | None = None, *workers: WorkerState) -> str:
    [standing] = standings(look(NOW, [seen], workers), {seen.queue: found or Flow()})
    return standing.word


@pytest.mark.parametrize(
    ("seen", "found", "expected"),
    [
        (counts(ready=None), Flow(), "undeclared"),
        (counts(consumers=0), Flow(), "idle"),
        (counts(consumers=0, dead=1), Flow(), "dead"),
        (counts(ready=1, consumers=0), Flow(), "no worker"),
        (counts(ready=1, consumers=0, paused=True), Flow(), "paused"),
        (counts(), Flow(), ""),
        (counts(dead=1), Flow(), "dead"),
        (counts(ready=9), Flow(running=0, arrivals=0.0, done=0.0, failed=0.0), "stuck"),
        (counts(ready=9), Flow(running=3, arrivals=0.0, done=0.0, failed=0.0), "busy"),
        (counts(ready=9), Flow(running=3, arrivals=2.0, done=1.0, failed=0.0), "growing"),
        (counts(ready=9), Flow(running=3, arrivals=1.0, done=1.0, failed=0.0), ""),
        (counts(ready=9), Flow(running=3, arrivals=2.0, done=1.0, failed=0.5), "failing"),
        (counts(ready=9), Flow(), ""),  # nobody knows
    ],
)
def test_word_says_how_a_queue_stands(seen: Counts, found: Flow, expected: str) -> None:
    assert word(seen, found) == expected


@pytest.mark.parametrize(
    ("who", "expected"), [("operator", "paused"), ("publisher", "paused"), ("breaker", "breaker")]
)
def test_word_says_who_pauses_a_queue(who: str, expected: str) -> None:
    assert word(counts(ready=1), None, worker(paused={"emails": {who: "why"}})) == expected


def test_what_needs_a_person_stands_on_top() -> None:
    moving = Flow(running=1, arrivals=1.0, done=1.0, failed=0.0)
    flows = {
        "calm": moving,
        "lone": Flow(),
        "slow": replace(moving, drain=60.0),
        "fast": replace(moving, drain=1.0),
        "stuck": Flow(running=0, done=0.0),
        "grows": replace(moving, arrivals=5.0),
        "dead": Flow(),
    }
    ready = {"lone": 1, "slow": 5, "fast": 500, "stuck": 1, "grows": 1}
    seen = look(
        NOW,
        [
            counts(queue, ready.get(queue, 0), consumers=int(queue != "lone"), dead=int(queue == "dead"))
            for queue in flows
        ],
    )

    found = standings(seen, flows)

    assert [standing.counts.queue for standing in found] == [
        "lone", "stuck", "grows", "dead", "slow", "fast", "calm",
    ]  # fmt: skip
    assert [standing.is_trouble for standing in found] == [True, True] + 5 * [False]


def test_look_knows_who_was_silent() -> None:
    seen: Look = look(NOW, workers=[worker("a", running=(job(1),)), worker("b")], heard={"b": NOW - 6})

    assert [seen.is_silent(name) for name in ("a", "b")] == [False, True]
