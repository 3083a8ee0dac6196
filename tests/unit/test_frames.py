"""Frames read and written by hand are those of the client library's codec, however the stream is cut."""

from __future__ import annotations

import itertools
from struct import pack
from typing import Any

import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import body, commands, header, heartbeat

from brokerjobs.amqp import frames
from brokerjobs.amqp.frames import BrokenStream, Content, Splitter, read_deliver, read_route
from brokerjobs.amqp.inlet import agrees_with_client
from brokerjobs.amqp.properties import ContentHeader

CHANNEL = 7
LARGE = 131_072 - 8

names = st.text(max_size=60).filter(lambda text: len(text.encode()) < 256)
exchanges = st.from_regex(r"[a-zA-Z0-9-_.:]{0,120}", fullmatch=True)  # of which the library writes no others
bodies = st.binary(max_size=300)


def deliver(
    tag: int = 1, exchange: str = "jobs", key: str = "emails.x", *, redelivered: bool = False
) -> bytes:
    return pamqp.frame.marshal(
        commands.Basic.Deliver(
            consumer_tag="ctag1.1",
            delivery_tag=tag,
            redelivered=redelivered,
            exchange=exchange,
            routing_key=key,
        ),
        CHANNEL,
    )


def message(content: bytes, *, method: bytes = deliver(), part: int = LARGE) -> bytes:
    head = header.ContentHeader(body_size=len(content), properties=commands.Basic.Properties(message_id="a"))
    parts = [content[at : at + part] for at in range(0, len(content), part)]
    return b"".join(
        [
            method,
            pamqp.frame.marshal(head, CHANNEL),
            *(pamqp.frame.marshal(body.ContentBody(piece), CHANNEL) for piece in parts),
        ]
    )


class Stream:
    """A splitter with one tapped channel."""

    def __init__(self, method: bytes = frames.DELIVER) -> None:
        self.came: list[tuple[bytes, bytes, bytes]] = []
        self.splitter = Splitter()
        content = Content(method, lambda *parts: self.came.append(parts))
        self.splitter.taps[CHANNEL] = content.take

    def feed(self, data: bytes, *cuts: int) -> bytes:
        places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
        return b"".join(self.splitter.feed(data[begin:end]) for begin, end in itertools.pairwise(places))


OTHERS: list[bytes] = [
    pamqp.frame.marshal(heartbeat.Heartbeat(), 0),
    pamqp.frame.marshal(commands.Basic.QosOk(), CHANNEL),
    pamqp.frame.marshal(commands.Channel.Close(404, "NOT_FOUND", 60, 20), CHANNEL),
    pamqp.frame.marshal(commands.Basic.Ack(3, True), 9),
    message(b"for another", method=deliver()).replace(pack(">H", CHANNEL), pack(">H", 8)),
]


@given(
    contents=st.lists(bodies, max_size=6),
    others=st.lists(st.sampled_from(OTHERS), max_size=6),
    part=st.integers(1, 80),
    cuts=st.lists(st.integers(0, 5000), max_size=12),
    order=st.randoms(use_true_random=False),
)
def test_messages_are_taken_whole_and_all_else_is_passed_on_unchanged(
    contents: list[bytes], others: list[bytes], part: int, cuts: list[int], order: Any
) -> None:
    pieces = [("ours", message(content, part=part)) for content in contents] + [
        ("other", raw) for raw in others
    ]
    order.shuffle(pieces)
    stream = Stream()
    passed = stream.feed(b"".join(raw for _, raw in pieces), *cuts)
    assert [came[2] for came in stream.came] == [
        content for raw in (raw for kind, raw in pieces if kind == "ours")
        for content in [_content_of(raw)]
    ]  # fmt: skip
    assert passed == b"".join(raw for kind, raw in pieces if kind == "other")


@given(
    pieces=st.lists(
        st.one_of(
            bodies.map(message),
            st.sampled_from([deliver(), message(b"cut off")[:-12], *OTHERS]),
            st.integers(1, 60).map(lambda most: message(b"x" * 70, part=most)),
        ),
        max_size=5,
    ),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=3),
)
def test_what_comes_at_once_is_what_comes_byte_by_byte(
    pieces: list[bytes], changes: list[tuple[int, int]]
) -> None:
    """Whatever was changed in it: the short way takes nothing else, and refuses nothing else, than the long one."""
    sent = bytearray(b"".join(pieces))
    for place, byte in changes:
        if sent:
            sent[place % len(sent)] = byte

    def outcome(*cuts: int) -> tuple[object, ...]:
        stream = Stream()
        try:
            return stream.feed(bytes(sent), *cuts), stream.came
        except BrokenStream:
            return "broken", stream.came

    assert outcome() == outcome(*range(len(sent)))


def _content_of(raw: bytes) -> bytes:
    found = b""
    while raw:
        length, _, frame = pamqp.frame.unmarshal(raw)
        raw = raw[length:]
        if isinstance(frame, body.ContentBody):
            found += frame.value or b""
    return found


@given(tag=st.integers(1, 2**63 - 1), exchange=exchanges, key=names, redelivered=st.booleans())
def test_delivery_reads_as_the_library_reads_it(tag: int, exchange: str, key: str, redelivered: bool) -> None:
    stream = Stream()
    assert stream.feed(message(b"x", method=deliver(tag, exchange, key, redelivered=redelivered))) == b""
    method, head, content = stream.came[0]
    number, again, rest = read_deliver(method)
    assert (number, again, content) == (tag, redelivered, b"x")
    assert read_route(rest) == (exchange.encode(), key.encode())
    assert pamqp.frame.unmarshal(frames.frame(2, 1, head))[2].properties.message_id == "a"  # type: ignore[union-attr]


@given(tag=st.integers(1, 2**63 - 1), channel=st.integers(1, 65535), multiple=st.booleans())
def test_answers_are_written_as_the_library_writes_them(tag: int, channel: int, multiple: bool) -> None:
    assert frames.write_ack(channel, tag, multiple=multiple) == pamqp.frame.marshal(
        commands.Basic.Ack(tag, multiple), channel
    )
    assert frames.write_requeue(channel, tag) == pamqp.frame.marshal(
        commands.Basic.Nack(tag, multiple=False, requeue=True), channel
    )


def test_heartbeat_is_one() -> None:
    assert pamqp.frame.marshal(heartbeat.Heartbeat(), 0) == frames.IDLE


@given(st.binary(min_size=1, max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_whatever_comes_is_passed_on_or_refused(data: bytes, cuts: list[int]) -> None:
    stream = Stream()
    try:
        passed = stream.feed(data, *cuts)
    except BrokenStream:
        return
    assert data.startswith(passed)


@given(
    place=st.integers(0, 10_000),
    value=st.integers(0, 255),
    content=bodies,
    cuts=st.lists(st.integers(0, 600), max_size=4),
)
def test_one_wrong_byte_is_read_or_refused_and_makes_nothing_up(
    place: int, value: int, content: bytes, cuts: list[int]
) -> None:
    good = message(content, part=50) + message(b"second")
    bad = bytearray(good)
    bad[place % len(bad)] = value
    stream = Stream()
    try:
        stream.feed(bytes(bad), *cuts)
    except BrokenStream:
        return
    assert len(stream.came) <= 2


@pytest.mark.parametrize(
    "data",
    [
        b"\x01\x00\x07\x7f\xff\xff\xff",  # a length beyond all
        b"\x05\x00\x07\x00\x00\x00\x00\xce",  # an unknown kind
        b"\x01\x00\x07\x00\x00\x00\x01\x00\x00",  # no end where it should be
        deliver() + frames.frame(frames.HEADER, CHANNEL, b"\x00\x3c"),
        deliver() + frames.frame(frames.BODY, CHANNEL, b"no header"),
        deliver() + frames.frame(frames.HEADER, CHANNEL, pack(">HHQH", 60, 0, 2, 0)) * 2,
        deliver() + frames.frame(frames.HEADER, CHANNEL, pack(">HHQH", 60, 0, 2, 0))
        + frames.frame(frames.HEARTBEAT, CHANNEL, b"{}"),
        deliver() + frames.frame(frames.HEADER, CHANNEL, pack(">HHQH", 60, 0, 2, 0))
        + frames.frame(frames.BODY, CHANNEL, b"abc"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(data: bytes) -> None:
    stream = Stream()
    with pytest.raises(BrokenStream):
        stream.feed(frames.IDLE + data + b"\x00" * 8)


@pytest.mark.parametrize("payload", [b"", b"\x00\x3c\x00\x3c", b"\x00\x3c\x00\x3c\x01c" + b"\x00" * 8])
def test_delivery_that_is_cut_off_is_refused(payload: bytes) -> None:
    with pytest.raises(BrokenStream):
        read_deliver(payload)


@pytest.mark.parametrize("rest", [b"", b"\x03ab", b"\x01a", b"\x01a\x05key"])
def test_route_that_is_cut_off_is_refused(rest: bytes) -> None:
    with pytest.raises(BrokenStream):
        read_route(rest)


@pytest.mark.parametrize(
    "words", [b"AMQP\x00\x00\x09\x01", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x03"]
)
def test_what_does_not_begin_as_amqp_is_the_librarys_to_judge(words: bytes) -> None:
    stream = Stream()
    assert stream.feed(words, 1, 3) == words
    assert stream.feed(b"\x01" * 300) == b"\x01" * 300


def test_frame_size_is_what_was_agreed_on() -> None:
    stream = Stream()
    stream.splitter.largest = 100
    assert stream.feed(frames.frame(frames.BODY, 3, b"x" * 100))
    with pytest.raises(BrokenStream):
        stream.feed(frames.frame(frames.BODY, 3, b"x" * 101))


def test_a_delivery_and_its_answer_are_to_the_installed_library_what_they_are_here() -> None:
    assert agrees_with_client()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("read_content_header", lambda _: ContentHeader(60, 0, 0, {"message_id": "8"}, "")),
        ("read_deliver", lambda _: (2, True, b"\x00\x00")),
    ],
)
def test_a_library_that_disagrees_is_found_out(
    monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    monkeypatch.setattr(f"brokerjobs.amqp.delivery.{name}", value)
    agrees_with_client.cache_clear()
    assert not agrees_with_client()
    agrees_with_client.cache_clear()
