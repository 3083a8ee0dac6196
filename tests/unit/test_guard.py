"""What the client library cannot read arrives all the same, with words for what is wrong and its body whole."""

from __future__ import annotations

import datetime as dt
import time
from decimal import Decimal
from struct import pack
from typing import Any

import pamqp.frame
import pytest
from aiormq.exceptions import AMQPConnectionError, InvalidFrameError
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, decode, header
from structlog.testing import capture_logs

from brokerjobs.amqp import guard
from brokerjobs.amqp.confirm_channel import to_pika
from brokerjobs.amqp.guard import Streak, problems_of
from brokerjobs.amqp.properties import read_content_header
from brokerjobs.amqp.settlement import dead_letter
from brokerjobs.amqp.wire import from_pamqp, to_pamqp
from brokerjobs.errors import ConfigurationError, UndecodableMessage
from brokerjobs.failure import Failure
from brokerjobs.message import PROBLEMS, salvage
from brokerjobs.message import decode as decode_message
from brokerjobs.outcome import DeadLettered
from brokerjobs.topology import Names
from tests import hostile
from tests.hostile import headers, short, table

PLAIN = header.ContentHeader.unmarshal


@pytest.fixture(autouse=True, scope="module")
def guarded() -> None:
    guard.install()


def content_header(properties: bytes, body_size: int = 7) -> bytes:
    return pack(">HHQ", 60, 0, body_size) + properties


def frame(kind: int, payload: bytes) -> bytes:
    return pack(">BHI", kind, 1, len(payload)) + payload + b"\xce"


def received(payload: bytes) -> header.ContentHeader:
    """What the client library makes of it."""
    _, channel, found = pamqp.frame.unmarshal(frame(2, payload))
    assert channel == 1
    assert isinstance(found, header.ContentHeader)
    return found


def problems(found: header.ContentHeader) -> str:
    return problems_of(commands.Basic.Deliver(routing_key="k"), found.properties)


# ---- in words


@pytest.mark.parametrize(("properties", "words"), hostile.UNREADABLE.values(), ids=hostile.UNREADABLE)
def test_what_cannot_be_read_is_said_in_words(properties: bytes, words: str) -> None:
    found = received(content_header(properties))

    assert words in problems(found)
    assert len(problems(found)) < 1_000
    assert found.body_size == 7


def test_what_can_be_read_beside_it_is_there() -> None:
    found = received(
        content_header(
            pack(">H", 0x2000 | 0x80 | 0x40 | 0x20)
            + table(short(b"tenant") + b"S" + table(b"acme") + short(b"k\xe9") + b"I" + pack(">i", -7))
            + short(b"order-17")
            + pack(">Q", 10**15)
            + short(b"emails.welcome")
        )
    )

    assert from_pamqp(found.properties) | {"timestamp": None} == {
        **from_pamqp(commands.Basic.Properties()),
        "headers": {"tenant": "acme", "k\\xe9": -7},
        "message_id": "order-17",
        "type": "emails.welcome",
    }
    assert problems(found) == (
        r"the name of a header is not UTF-8: b'k\xe9'; "
        "timestamp is a time beyond the year 9999: 1000000000000000, where seconds since 1970 belong"
    )


def test_many_problems_are_told_in_few_words() -> None:
    found = received(content_header(headers(b"".join(short(b"\xff%d" % n) + b"V" for n in range(1000)))))

    assert problems(found).endswith("; and 997 more")


def test_a_routing_key_or_exchange_that_is_not_utf8_arrives_spelled_out() -> None:
    payload = (
        pack(">I", commands.Basic.Deliver.index)
        + short(b"ctag")
        + pack(">QB", 5, 1)
        + short(b"ex\xff")
        + short(b"emails.caf\xe9")
    )
    _, _, found = pamqp.frame.unmarshal(frame(1, payload))

    assert isinstance(found, commands.Basic.Deliver)
    assert (found.consumer_tag, found.delivery_tag, found.redelivered) == ("ctag", 5, True)
    assert (found.exchange, found.routing_key) == ("ex\\xff", "emails.caf\\xe9")
    assert problems_of(found, commands.Basic.Properties()) == (
        r"the routing key is not UTF-8: emails.caf\xe9; the exchange is not UTF-8: ex\xff"
    )


def test_a_routing_key_that_only_looks_so_is_a_routing_key() -> None:
    assert problems_of(commands.Basic.Deliver(routing_key="caf\\xe9"), commands.Basic.Properties()) == ""


def test_no_header_takes_long() -> None:
    """The library's own decoder needs 6 s for this one, a few of which outlast the heartbeat."""
    began = time.process_time()
    found = received(content_header(headers(short(b"k") + b"A" + table(b"V" * 130_000))))

    assert time.process_time() - began < 1.0
    assert problems(found) == ""
    assert isinstance(found.properties.headers, dict)
    assert found.properties.headers["k"] == [None] * 130_000


# ---- as the library does, where that can


texts = st.text(max_size=20)
values: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | texts
    | st.binary(max_size=8).map(bytearray)
    | st.decimals(0, 2**24, places=2)
    | st.datetimes(dt.datetime(1970, 1, 1), dt.datetime(2100, 1, 1)).map(
        lambda time: time.replace(microsecond=0, tzinfo=dt.UTC)
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
all_properties = st.builds(
    commands.Basic.Properties,
    content_type=st.none() | texts,
    content_encoding=st.none() | texts,
    headers=st.none() | st.dictionaries(texts, values, max_size=5),
    delivery_mode=st.none() | st.sampled_from([1, 2]),
    priority=st.none() | st.integers(0, 255),
    correlation_id=st.none() | texts,
    reply_to=st.none() | texts,
    expiration=st.none() | texts,
    message_id=st.none() | texts,
    timestamp=st.none() | st.datetimes(dt.datetime(1970, 1, 1), dt.datetime(2100, 1, 1)),
    message_type=st.none() | texts,
    user_id=st.none() | texts,
    app_id=st.none() | texts,
)


@given(all_properties, st.integers(0, 2**64 - 1))
def test_what_the_library_can_read_is_read_alike(
    properties: commands.Basic.Properties, body_size: int
) -> None:
    payload = header.ContentHeader(0, body_size, properties).marshal()
    plain = header.ContentHeader()
    PLAIN(plain, payload)

    found = received(payload)

    assert type(found.properties) is commands.Basic.Properties
    assert dict(found.properties) == dict(plain.properties)
    assert (found.class_id, found.weight, found.body_size) == (plain.class_id, plain.weight, body_size)


@pytest.mark.parametrize("kind", "tbBsuIilLfdDSATFVx\0")
def test_every_kind_of_header_is_read_alike(kind: str) -> None:
    value = {
        **dict.fromkeys("tbB", b"\xfe"),
        **dict.fromkeys("su", b"\xfe\x01"),
        **dict.fromkeys("Iif", b"\xfe\x01\x02\x03"),
        **dict.fromkeys("lLd", b"\xfe\x01\x02\x03\x04\x05\x06\x07"),
        "D": b"\x02\x00\x00\x00\x07",
        "S": table("grüezi".encode()),
        "x": table(b"\xff"),
        "A": table(b"t\x01V"),
        "F": table(short(b"in") + b"t\x00"),
        "T": pack(">Q", 1_700_000_000_123),
    }.get(kind, b"")
    payload = content_header(headers(short(b"k") + kind.encode() + value + short(b"after") + b"t\x01"))
    plain = header.ContentHeader()
    PLAIN(plain, payload)

    found = read_content_header(payload)

    assert found.properties["headers"] == plain.properties.headers
    assert list(found.properties["headers"]) == ["k", "after"]
    assert found.problems == ""


# ---- whatever comes


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    properties = bytearray(draw(all_properties).marshal())
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(properties) - 1))
        match draw(st.sampled_from(["change", "insert", "drop", "cut"])):
            case "change":
                properties[at] = draw(st.integers(0, 255))
            case "insert":
                properties[at:at] = draw(st.binary(max_size=6))
            case "drop" if len(properties) > 1:
                del properties[at]
            case _:
                del properties[at + 1 :]
    return bytes(properties)


@given(st.binary(max_size=200) | mutated(), st.integers(0, 2**64 - 1))
def test_no_header_is_an_error_or_changes_the_size_of_the_body(properties: bytes, body_size: int) -> None:
    found = received(content_header(properties, body_size))

    assert found.body_size == body_size


@given(st.binary(max_size=200) | mutated(), st.binary(max_size=40))
def test_every_header_can_be_read_again_from_its_dead_letter(properties: bytes, key: bytes) -> None:
    """A copy that the broker, or a client, could not take would be held for ever."""
    _, routing_key = decode.METHODS["shortstr"](short(key))
    found = received(content_header(properties))
    found.properties.headers = {**(found.properties.headers or {}), "\\xff" * 60: 1}
    read = {**from_pamqp(found.properties), PROBLEMS: problems(found)}

    message = salvage(read, b"", routing_key=str(routing_key))
    copy = dead_letter(
        message, DeadLettered(reason="undecodable", failure=Failure(text="why")), "emails", Names()
    ).message
    again = received(header.ContentHeader(0, 0, to_pamqp(copy)).marshal())

    assert problems(again) == ""
    to_pika(copy).encode()  # type: ignore[no-untyped-call]
    told = decode_message(from_pamqp(again.properties), b"", routing_key="emails")
    assert (told.id, told.job, told.marks["reason"]) == (message.id, message.job, "undecodable")


def test_a_header_that_cannot_tell_the_size_of_the_body_breaks_the_connection() -> None:
    with pytest.raises(pamqp.exceptions.UnmarshalingException):
        pamqp.frame.unmarshal(frame(2, b"\0" * 11))


def test_a_message_with_problems_cannot_be_decoded() -> None:
    with pytest.raises(UndecodableMessage, match="the type is not UTF-8") as caught:
        decode_message({PROBLEMS: "the type is not UTF-8"}, b"", routing_key="emails.welcome")
    assert caught.value.reason == "undecodable"


def test_decimals_keep_all_their_digits() -> None:
    payload = content_header(headers(short(b"k") + b"D" + pack(">BI", 255, 2**32 - 1)))

    assert read_content_header(payload).properties["headers"] == {"k": Decimal(2**32 - 1).scaleb(-255)}


# ---- the second net


def test_a_library_that_does_not_take_the_guard_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pamqp.frame, "_unmarshal_header_frame", lambda _: PLAIN)

    with pytest.raises(ConfigurationError, match=r"pip install pamqp==4\.0\.1"):
        guard.install.__wrapped__()


def test_sessions_that_end_by_what_was_read_are_told_at_the_third_in_a_row() -> None:
    streak = Streak()
    with capture_logs() as lines:
        bad, away = [InvalidFrameError("bad"), RecursionError("deep")], AMQPConnectionError("away")
        for error in *bad, away, *bad, None, *bad:
            streak.count(error, "emails")
        assert lines == []
        streak.count(ValueError("bad"), "emails")

    (line,) = lines
    assert (line["event"], line["queues"], line["sessions"]) == ("queue held up", "emails", 3)
    assert "ValueError: bad" in line["error"]
