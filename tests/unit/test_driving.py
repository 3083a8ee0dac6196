"""Who drives the publisher's loop: a caller that waits, or the thread; and that it is never both, nor nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

import pytest

from brokerjobs.amqp import driving
from brokerjobs.amqp.driving import Driving
from brokerjobs.amqp.sending import Sending
from tests.waiting import eventually

AMPLE = 30.0  # seconds within which everything here ends


class Stage:
    """A loop on which happens what the test says, and the thread that serves it."""

    def __init__(self) -> None:
        self.is_ready = True
        self.owed = 0  # to others
        self.polled_by: list[str] = []
        self.alarms: list[float] = []
        self.events: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self.driving = Driving(self, lambda: self.is_ready, lambda: self.is_ready and not self.owed)  # type: ignore[arg-type]
        self.thread = threading.Thread(target=self.driving.serve, name="thread")

    # of the loop

    def poll(self) -> None:
        self.polled_by.append(threading.current_thread().name)
        try:
            self.events.get(timeout=AMPLE)()
        except Empty:
            raise AssertionError("nothing happened") from None

    def process_timeouts(self) -> None: ...

    def activate_poller(self) -> None: ...

    def deactivate_poller(self) -> None: ...

    def call_later(self, delay: float, _: Callable[[], None]) -> None:
        self.alarms.append(delay)

    # of the test

    def drive(self, *events: Callable[[Sending], object], until: float = AMPLE, **more: Any) -> Sending:
        """Drive as a caller, while this happens."""
        sending = Sending()

        def begin() -> None:
            for event in events:
                self.events.put(partial(event, sending))

        sending.alone = self.driving.drive(sending, time.monotonic() + until, **{"begin": begin, **more})
        return sending


def answer(sending: Sending) -> None:
    sending.resolve(True)


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.driving.stop()
    stage.owed += 1
    stage.events.put(lambda: None)
    stage.driving._calls.put(None)
    if stage.thread.ident:
        stage.thread.join(AMPLE)
        assert not stage.thread.is_alive()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread comes only when it is called."""
    monkeypatch.setattr(driving, "PATIENCE", AMPLE)


def me() -> str:
    return threading.current_thread().name


def test_a_caller_drives_until_it_has_its_answer(stage: Stage) -> None:
    sending = stage.drive(lambda _: None, answer)
    assert sending.is_answered
    assert stage.polled_by == [me()] * 2


def test_two_never_drive_at_once(stage: Stage) -> None:
    drives: list[bool] = []

    def another_comes(_: Sending) -> None:
        drives.append(stage.drive(answer).alone)

    assert stage.drive(another_comes, answer).alone
    assert drives == [False]
    assert stage.polled_by == [me()] * 2


def test_a_caller_stays_no_longer_than_its_deadline_nor_does_the_loop(stage: Stage) -> None:
    stage.drive(answer, until=20)
    stage.drive(answer, until=25)  # there is an alarm before that
    stage.drive(answer, until=10)
    assert [round(alarm) for alarm in stage.alarms] == [20, 10]
    stage.driving._rang()
    assert not stage.drive(until=0).is_answered
    assert len(stage.polled_by) == 3


def test_the_loop_of_the_library_wakes_in_time() -> None:
    from pika.adapters.select_connection import IOLoop

    loop = IOLoop()
    loop.activate_poller()
    began = time.monotonic()
    for _ in range(2):
        Driving(loop, lambda: True, lambda: True).drive(Sending(), time.monotonic() + 0.05, lambda: None)
    loop.deactivate_poller()
    loop.close()
    assert 0.1 <= time.monotonic() - began < 4


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("left", ["others wait", "the channel is gone"])
def test_what_a_caller_leaves_undone_the_thread_takes_up(stage: Stage, left: str) -> None:
    def more_to_do(_: Sending) -> None:
        if left == "others wait":
            stage.owed += 1
        else:
            stage.is_ready = False

    stage.owed = 1
    stage.thread.start()
    stage.events.put(lambda: setattr(stage, "owed", 0))
    eventually(lambda: stage.driving._driver is None and not stage.owed)
    stage.polled_by.clear()

    sending = stage.drive(more_to_do, *([answer] if left == "others wait" else []))
    assert sending.is_answered == (left == "others wait")
    eventually(lambda: stage.polled_by[-1] == "thread")


@pytest.mark.usefixtures("patient")
def test_the_thread_lets_callers_drive_once_nothing_is_left_to_do(stage: Stage) -> None:
    stage.owed = 2
    stage.thread.start()
    eventually(lambda: stage.polled_by == ["thread"])
    assert not stage.drive().alone
    for _ in range(2):
        stage.events.put(lambda: setattr(stage, "owed", stage.owed - 1))
    eventually(lambda: stage.driving._driver is None)
    assert stage.polled_by == ["thread"] * 2
    assert stage.drive(answer).alone


def test_the_thread_drives_when_nobody_comes_for_a_while(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driving, "PATIENCE", 0.01)
    stage.events.put(lambda: None)
    stage.thread.start()
    eventually(lambda: stage.polled_by == ["thread"] * 2, what="once more after a rest, though nobody called")


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, TimeoutError])
@pytest.mark.parametrize("when", ["at the beginning", "later"])
def test_a_loop_in_which_a_caller_was_interrupted_is_never_driven_again(
    stage: Stage, error: type[BaseException], when: str
) -> None:
    def interrupt(*_: object) -> None:
        raise error

    stage.events.put(lambda: None)
    stage.thread.start()
    eventually(lambda: stage.polled_by == ["thread"] and stage.driving._driver is None)
    with pytest.raises(error):
        stage.drive(interrupt) if when == "later" else stage.drive(begin=interrupt)
    assert stage.driving.is_broken
    assert not stage.drive(answer).alone
    stage.thread.join(AMPLE)
    assert stage.polled_by.count("thread") == 1


def test_a_caller_knows_that_it_drives_already(stage: Stage) -> None:
    known: list[bool] = []

    def look(_: Sending) -> None:
        known.append(stage.driving.is_by_this_caller)
        other = threading.Thread(target=lambda: known.append(stage.driving.is_by_this_caller))
        other.start()
        other.join(AMPLE)

    stage.drive(look, answer)
    assert [*known, stage.driving.is_by_this_caller] == [True, False, False]


def test_a_loop_that_is_stopped_while_a_caller_drives_ends_when_the_caller_has_let_go(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the thread leaves it also closes, and the caller may be in the middle of it."""
    monkeypatch.setattr(driving, "PATIENCE", 0.001)
    rests: list[None] = []
    rest = Driving._rest
    monkeypatch.setattr(Driving, "_rest", lambda self: rests.append(rest(self)))
    stage.owed += 1
    lives: list[bool] = []

    def stop(_: Sending) -> None:
        stage.thread.start()
        stage.driving.stop()
        eventually(lambda: len(rests) > 1 or not stage.thread.is_alive())
        lives.append(stage.thread.is_alive())

    stage.drive(stop, answer)
    stage.thread.join(AMPLE)
    assert (lives, stage.thread.is_alive(), stage.polled_by) == ([True], False, ["MainThread"] * 2)
