"""What a blocking caller is told: the first answer, or what is known when its time is up."""

from __future__ import annotations

import threading
import time

import pytest

from brokerjobs import BrokerUnreachable, Message, PublishRefused, PublishUnknown
from brokerjobs.amqp.sending import Sending
from brokerjobs.transport import Publication


def sending() -> Sending:
    return Sending(Publication("jobs", "a.b", Message(job="a.b", routing_key="a.b")), why="no answer yet")


def test_an_answer_wakes_whoever_waits_and_stays() -> None:
    one = sending()
    threading.Timer(0.05, one.resolve, [True]).start()
    began = time.monotonic()
    assert one.wait(began + 30)
    assert [one.answer(0), one.wait(0), one.answer(0)] == [True, True, True]
    assert time.monotonic() - began < 20


def test_the_first_answer_counts() -> None:
    one = sending()
    one.resolve(False)
    one.resolve(PublishRefused("too late"))
    assert one.answer(0) is False


def test_an_error_is_raised() -> None:
    one = sending()
    one.resolve(PublishRefused("too long"))
    with pytest.raises(PublishRefused, match="too long"):
        one.answer(0)


@pytest.mark.parametrize(("written", "fate"), [(False, BrokerUnreachable), (True, PublishUnknown)])
def test_who_gives_up_is_told_whether_it_may_be_queued(written: bool, fate: type[Exception]) -> None:
    one = sending()
    one.written = written
    with pytest.raises(fate, match="no answer yet"):
        one.answer(time.monotonic() + 0.01)
    assert one.is_given_up


def test_a_wait_without_an_end_is_one_that_the_system_can_wait() -> None:
    one = sending()
    threading.Timer(0.01, one.resolve, [True]).start()
    assert one.wait(float("inf"))


@pytest.mark.parametrize(("doubtful", "fate"), [(False, PublishRefused), (True, PublishUnknown)])
def test_a_refusal_of_what_may_be_queued_already_is_no_verdict(doubtful: bool, fate: type[Exception]) -> None:
    one = sending()
    one.written = True
    if doubtful:
        one.doubt()
    one.refuse(PublishRefused("no exchange"))
    with pytest.raises(fate, match="no exchange"):
        one.answer(0)
