"""When the publisher's thread is woken, and what it writes in which order."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from brokerjobs import Message
from brokerjobs import settings as settings_module
from brokerjobs.amqp.blocking import BlockingPublisher
from brokerjobs.amqp.owner import LINGER, Owner
from brokerjobs.amqp.sending import Sending
from brokerjobs.amqp.unconfirmed import Refused, Returned
from brokerjobs.transport import Publication


class Stage:
    """An owner whose thread is the test, and whose channel takes note."""

    is_open = True

    def __init__(self) -> None:
        self.owner = Owner(settings_module.load(url="amqp://localhost"), lambda *_: None)
        self.owner._loop.close()
        self.owner._loop = self  # type: ignore[assignment]
        self.owner._channel = self  # type: ignore[assignment]
        self.wakes: list[Callable[[], None]] = []
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.writes: list[list[str]] = [[]]

    # of the loop

    def add_callback_threadsafe(self, callback: Callable[[], None]) -> None:
        self.wakes.append(callback)

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        self.later.append((delay, callback))

    def turn(self) -> None:
        wakes, self.wakes = self.wakes, []
        for wake in wakes:
            wake()

    def time_passes(self) -> list[float]:
        later, self.later = self.later, []
        for _, callback in later:
            callback()
        return [delay for delay, _ in later]

    # of the channel

    def publish(self, publication: Publication) -> None:
        self.writes[-1].append(publication.message.id)

    def send(self) -> None:
        self.writes.append([])

    @property
    def written(self) -> list[list[str]]:
        return [write for write in self.writes if write]

    def hand_over(self, id: str, **more: Any) -> Sending:
        sending = Sending(Publication("jobs", "a.b", Message(job="a.b", routing_key="a.b", id=id)))
        assert self.owner.take(sending, **more)
        return sending


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_all_that_came_together_leaves_with_one_wake_in_one_write(stage: Stage) -> None:
    for id in "abc":
        stage.hand_over(id)
    assert len(stage.wakes) == 1
    stage.turn()
    assert stage.written == [["a", "b", "c"]]
    assert stage.later == []
    stage.hand_over("d")
    assert len(stage.wakes) == 1


def test_a_stream_wakes_the_thread_once_in_a_moment(stage: Stage) -> None:
    stage.hand_over("a", of_stream=True)
    stage.turn()
    for id in "bcd":
        stage.hand_over(id, of_stream=True)
    assert (stage.wakes, stage.written) == ([], [["a"]])
    assert stage.time_passes() == [LINGER]
    assert stage.written == [["a"], ["b", "c", "d"]]
    assert stage.time_passes() == [LINGER], "it looks once more after it has found something"
    assert stage.time_passes() == []
    stage.hand_over("e", of_stream=True)
    assert len(stage.wakes) == 1


@pytest.mark.parametrize("how", ["a send", "hurry"])
def test_who_waits_now_does_not_wait_for_the_stream(stage: Stage, how: str) -> None:
    stage.hand_over("a", of_stream=True)
    stage.turn()
    stage.hand_over("b", of_stream=True)
    if how == "hurry":
        stage.owner.hurry()
        stage.owner.hurry()
    else:
        stage.hand_over("c")
    assert len(stage.wakes) == 1
    stage.turn()
    assert stage.written == [["a"], ["b"] if how == "hurry" else ["b", "c"]]


def test_to_hurry_with_nothing_to_do_wakes_nobody(stage: Stage) -> None:
    stage.owner.hurry()
    assert stage.wakes == []


def test_the_second_of_an_id_waits_for_the_verdict_on_the_first(stage: Stage) -> None:
    first, second = stage.hand_over("a"), stage.hand_over("a")
    other = stage.hand_over("b")
    stage.turn()
    assert stage.written == [["a", "b"]]
    stage.owner._unconfirmed.judge(1, multiple=False, error=None)
    assert (first.wait(0), second.wait(0), other.wait(0)) == (True, False, False)
    stage.turn()
    assert stage.written == [["a", "b"], ["a"]]


def test_those_in_doubt_go_one_at_a_time_before_all_else(stage: Stage) -> None:
    doubtful = [stage.hand_over("a"), stage.hand_over("b")]
    for sending in doubtful:
        sending.alone = True
    stage.hand_over("c")
    stage.turn()
    for number in 1, 2:
        stage.owner._unconfirmed.judge(number, multiple=False, error=None)
        stage.turn()
    assert stage.written == [["a"], ["b"], ["c"]]


def test_what_was_given_up_is_not_written(stage: Stage) -> None:
    given_up = stage.hand_over("a")
    given_up.is_given_up = True
    stage.hand_over("b")
    stage.turn()
    assert stage.written == [["b"]]


def test_a_nack_is_tried_again_and_a_return_is_not(stage: Stage) -> None:
    nacked, returned = stage.hand_over("a"), stage.hand_over("b")
    stage.turn()
    stage.owner._verdict(returned, Returned("312 NO_ROUTE"))
    stage.owner._unconfirmed.judge(1, multiple=False, error=Refused())
    assert (nacked.wait(0), returned.wait(0)) == (False, True)
    stage.time_passes()
    assert stage.written == [["a", "b"], ["a"]]


FORK_WHILE_LOADING = """
import importlib.abc, os, signal, sys, threading
from brokerjobs import BrokerUnreachable, Client

class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "pika":
            loads.set()
            threading.Event().wait(0.3)

loads = threading.Event()
sys.meta_path.insert(0, Slow())
client = Client("amqp://guest:guest@127.0.0.1:1/", publish_timeout=0.1)

def send():
    try:
        client.send("emails.welcome", check_queue=False)
    except BrokerUnreachable:
        return 0
    return 1

thread = threading.Thread(target=send)
thread.start()
loads.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)  # should it hang all the same
    os._exit(send())
assert os.waitpid(child, 0)[1] == 0
thread.join()
"""


def test_a_signals_handler_can_send_while_its_thread_starts_the_owner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publisher = BlockingPublisher(settings_module.load(url="amqp://localhost"))
    taken_by: dict[Sending, Owner] = {}
    started: list[Owner] = []

    def take(owner: Owner, sending: Sending, **_: object) -> bool:
        taken_by[sending] = owner
        return True

    def start(owner: Owner) -> None:
        owner._loop.close()  # it is never served
        started.append(owner)
        if len(started) == 1:
            signal.raise_signal(signal.SIGUSR1)

    monkeypatch.setattr(Owner, "take", take)
    monkeypatch.setattr(Owner, "start", start)
    handlers, first = Sending(), Sending()
    before = signal.signal(signal.SIGUSR1, lambda *_: publisher._hand_over(handlers))
    try:
        publisher._hand_over(first)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert taken_by[first] is publisher._owner
    assert publisher._inner is not None
    assert taken_by[handlers] is publisher._inner._owner
    publisher._owner = publisher._inner._owner = None  # they have not started


def test_a_child_that_is_forked_while_another_thread_loads_the_owner_can_send() -> None:
    subprocess.run([sys.executable, "-c", FORK_WHILE_LOADING], check=True, timeout=30)
