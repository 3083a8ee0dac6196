from __future__ import annotations

import pamqp.frame
from pamqp import commands

from brokerjobs.amqp.alarm import Alarm
from brokerjobs.amqp.frames import Splitter

BLOCKED = commands.Connection.Blocked("low on memory")
UNBLOCKED = commands.Connection.Unblocked()
OTHER = commands.Connection.CloseOk()


def said(*frames: object) -> bytes:
    return b"".join(pamqp.frame.marshal(frame, 0) for frame in frames)  # type: ignore[arg-type]


def test_alarm_is_seen_and_left_to_the_client_library() -> None:
    alarm, splitter, told = Alarm(), Splitter(), list[bool]()
    splitter.taps[0] = alarm.tap
    alarm.follow(told.append)

    for frame, is_on in (OTHER, False), (BLOCKED, True), (OTHER, True), (UNBLOCKED, False):
        assert splitter.feed(said(frame)) == said(frame)
        assert alarm.is_on == is_on

    assert told == [True, False]


def test_alarm_ends_with_its_connection() -> None:
    alarm, told = Alarm(), list[bool]()
    alarm.follow(told.append)
    alarm.end()
    assert told == []

    alarm.tap(1, said(BLOCKED, BLOCKED), 7, 99)
    alarm.tap(1, said(BLOCKED, BLOCKED), 7, 99)
    alarm.end()
    alarm.end()

    assert told == [True, False]


def test_who_comes_late_is_told_of_an_alarm_that_is_on() -> None:
    alarm, told = Alarm(), list[bool]()
    alarm.tap(1, said(BLOCKED), 7, 99)

    alarm.follow(told.append)

    assert told == [True]
