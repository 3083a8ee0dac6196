"""The blocking publisher's channel: what leaves on each of its two ways, and what comes back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pika
import pika.exceptions
import pika.frame
import pika.spec
import pytest
from pika.adapters.select_connection import IOLoop
from structlog.testing import capture_logs

from brokerjobs import Message
from brokerjobs import settings as settings_module
from brokerjobs.amqp import confirm_channel
from brokerjobs.amqp.confirm_channel import ENOUGH, ChannelGone, ConfirmChannel, agrees_with_pika
from brokerjobs.amqp.dial import Connection, Parameters
from brokerjobs.amqp.encode import Unwritable
from brokerjobs.amqp.frames import IDLE, BrokenStream, Tap
from brokerjobs.amqp.unconfirmed import Refused, Returned, Unconfirmed
from brokerjobs.transport import Publication

NUMBER = 3
basic: Any = pika.spec.Basic  # whose methods have no types
properties_of: Any = pika.BasicProperties


class FakeConnection:
    """Takes what is sent."""

    def __init__(self, *, has_fast_lane: bool = True, is_split: bool = True) -> None:
        self.has_fast_lane = has_fast_lane
        self.taps: dict[int, Tap] | None = {} if has_fast_lane and is_split else None
        self.frame_max = 4096
        self.is_open = True
        self.sent: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.sent.append(data)


class FakeChannel:
    """The library's."""

    channel_number = NUMBER
    is_open = True

    def __init__(self, error: Exception | None = None) -> None:
        self.published: list[tuple[Any, ...]] = []
        self.error = error

    def add_on_return_callback(self, callback: Any) -> None:
        self.returned = callback

    def basic_publish(self, *arguments: Any, **options: Any) -> None:
        if self.error is not None:
            raise self.error
        self.published.append((*arguments, options))


def publication(body: bytes = b"{}", **more: Any) -> Publication:
    return Publication("jobs", "a.b", Message(job="a.b", routing_key="a.b", body=body, **more))


class Stage:
    def __init__(self, connection: FakeConnection, channel: FakeChannel | None = None) -> None:
        self.connection = connection
        self.library = channel or FakeChannel()
        self.told: list[tuple[str, Exception | None]] = []
        self.unconfirmed: Unconfirmed[str] = Unconfirmed(lambda *told: self.told.append(told))
        self.channel = ConfirmChannel(connection, self.library, self.unconfirmed)  # type: ignore[arg-type]


def frames_in(data: bytes) -> Iterator[Any]:
    while data:
        size, frame = pika.frame.decode_frame(data)
        yield frame
        data = data[size:]


def test_what_is_published_together_leaves_in_one_write_and_reads_as_it_was_meant() -> None:
    stage = Stage(FakeConnection())
    for priority in range(3):
        stage.channel.publish(publication(b"x" * 6000, priority=priority))
    assert stage.connection.sent == []
    stage.channel.send()
    stage.channel.send()
    [data] = stage.connection.sent
    frames = list(frames_in(data))
    assert {frame.channel_number for frame in frames} == {NUMBER}
    assert [frame.method.mandatory for frame in frames if isinstance(frame, pika.frame.Method)] == [True] * 3
    heads = [frame for frame in frames if isinstance(frame, pika.frame.Header)]
    assert [(head.body_size, head.properties.priority) for head in heads] == [(6000, 0), (6000, 1), (6000, 2)]
    parts = [len(frame.fragment) for frame in frames if isinstance(frame, pika.frame.Body)]
    assert parts == [4088, 1912] * 3


def test_much_does_not_wait_to_be_sent() -> None:
    stage = Stage(FakeConnection())
    for _ in range(3):
        stage.channel.publish(publication(b"x" * (ENOUGH // 2 + 1)))
    assert [ENOUGH < len(data) < 2 * ENOUGH for data in stage.connection.sent] == [True]


def test_through_the_library_where_the_fast_lane_is_not_wanted() -> None:
    with capture_logs() as lines:
        stage = Stage(FakeConnection(has_fast_lane=False))
        stage.channel.publish(publication())
        stage.channel.send()
    [(exchange, key, body, properties, options)] = stage.library.published
    assert (exchange, key, body, options) == ("jobs", "a.b", b"{}", {"mandatory": True})
    assert isinstance(properties, pika.BasicProperties)
    assert (stage.connection.sent, lines) == ([], [])


@pytest.mark.parametrize("what", ["its stream does not pass here", "it disagrees on a sample"])
def test_through_a_library_that_is_not_known_with_a_warning(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if what == "it disagrees on a sample":
        monkeypatch.setattr(confirm_channel, "agrees_with_pika", lambda: False)
    with capture_logs() as lines:
        stage = Stage(FakeConnection(is_split=what == "it disagrees on a sample"))
    stage.channel.publish(publication())
    assert len(stage.library.published) == 1
    assert [(line["event"], line["log_level"]) for line in lines] == [("fast lane is off", "warning")]


@pytest.mark.parametrize("fast", [True, False])
def test_what_cannot_be_written_is_said_and_not_sent(fast: bool) -> None:
    stage = Stage(FakeConnection(has_fast_lane=fast), FakeChannel(ValueError("odd")))
    with pytest.raises(Unwritable):
        stage.channel.publish(publication(priority=256))
    stage.channel.send()
    assert stage.connection.sent == []


def test_a_channel_that_was_closed_takes_nothing() -> None:
    gone = FakeChannel(pika.exceptions.ChannelWrongStateError("closed"))
    stage = Stage(FakeConnection(has_fast_lane=False), gone)
    with pytest.raises(ChannelGone):
        stage.channel.publish(publication())
    open_one = Stage(FakeConnection())
    assert open_one.channel.is_open
    open_one.connection.is_open = False
    assert not open_one.channel.is_open


def test_verdicts_are_the_same_on_both_ways() -> None:
    def verdicts(fast: bool) -> list[tuple[str, type[Exception] | None, str]]:
        stage = Stage(FakeConnection(has_fast_lane=fast))
        for name in "abcde":
            stage.unconfirmed.add(name, name)
        said: list[Any] = [
            basic.Ack(2),
            (basic.Return(312, "NO_ROUTE", "jobs", "x"), properties_of(message_id="c")),
            basic.Nack(4, multiple=True),
            basic.Ack(5, multiple=True),
        ]
        for each in said:
            if fast:
                assert stage.connection.taps is not None
                parts: list[Any] = [pika.frame.Method(NUMBER, each[0] if isinstance(each, tuple) else each)]
                if isinstance(each, tuple):
                    parts.append(pika.frame.Header(NUMBER, 0, each[1]))
                for part in parts:
                    data = part.marshal()
                    assert stage.connection.taps[NUMBER](data[0], data, 7, len(data) - 1)
            elif isinstance(each, tuple):
                stage.library.returned(None, *each, b"")
            else:
                stage.channel.confirmed(pika.frame.Method(NUMBER, each))
        return [(name, type(error) if error else None, str(error or "")) for name, error in stage.told]

    assert verdicts(fast=True) == verdicts(fast=False)
    assert verdicts(fast=True) == [
        ("b", None, ""),
        ("c", Returned, "312 NO_ROUTE"),
        ("a", Refused, ""),
        ("d", Refused, ""),
        ("e", None, ""),
    ]


def test_a_channel_that_has_ended_is_told_nothing_more() -> None:
    stage = Stage(FakeConnection())
    stage.channel.publish(publication())
    stage.channel.end()
    stage.channel.send()
    assert (stage.connection.taps, stage.connection.sent) == ({}, [])


def test_a_message_is_to_the_installed_library_what_it_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    agrees_with_pika.cache_clear()
    assert agrees_with_pika()
    monkeypatch.setattr("brokerjobs.amqp.encode.header", lambda *_: b"\x00\x3c" + b"\x00" * 12)
    agrees_with_pika.cache_clear()
    assert not agrees_with_pika()
    agrees_with_pika.cache_clear()


# -- the connection below


@pytest.fixture
def connection() -> Iterator[Connection]:
    loop = IOLoop()
    parameters = Parameters(settings_module.load(url="amqp://localhost"))
    yield Connection(parameters, custom_ioloop=loop, internal_connection_workflow=False)
    loop.close()


def test_frames_that_are_tapped_pass_by_the_library_and_still_show_that_the_peer_lives(
    connection: Connection,
) -> None:
    taken: list[bytes] = []
    before = connection.taps
    connection._proto_data_received(IDLE[:3])
    assert (before, connection.taps) == (None, {}), "until it is seen that the stream passes here"

    def tap(_: int, data: bytes, at: int, end: int) -> int:
        taken.append(data[at:end])
        return end + 1

    taps = connection.taps
    assert taps is not None
    taps[NUMBER] = tap
    frame = pika.frame.Body(NUMBER, b"payload").marshal()
    connection._proto_data_received(IDLE[3:] + frame + IDLE + frame[:4])
    connection._proto_data_received(frame[4:])
    assert taken == [b"payload"] * 2
    assert connection.frames_received == 2
    assert connection.bytes_received == 2 * len(IDLE) + 2 * len(frame)


def test_a_stream_that_breaks_ends_the_connection(connection: Connection) -> None:
    connection._proto_data_received(IDLE)
    with pytest.raises(BrokenStream):  # which the library's transport takes for a lost connection
        connection._proto_data_received(b"\x09" + IDLE)


def test_what_is_sent_on_a_connection_that_has_ended_reaches_nobody(connection: Connection) -> None:
    connection.send(b"x")
    assert connection.bytes_sent == 0
