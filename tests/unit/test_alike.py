"""What is read by comparing is what would have been read as a whole."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, header

from brokerjobs.amqp.alike import MOST_ROUTES, Alike
from brokerjobs.amqp.delivery import FromFrames, read_whole
from brokerjobs.message import Message

SENT = datetime(2026, 11, 22, tzinfo=UTC)
USUAL: dict[str, Any] = {
    "content_type": "application/json",
    "delivery_mode": 2,
    "priority": 4,
    "message_id": "0193c1a0-0000-7000-8000-000000000001",
    "timestamp": SENT,
    "message_type": "emails.welcome",
}


def method(route: str = "emails.welcome", exchange: str = "jobs") -> bytes:
    deliver = commands.Basic.Deliver("ctag", 1, False, exchange, route)
    return deliver.frame_id.to_bytes(4, "big") + deliver.marshal()


def head(properties: dict[str, Any], size: int = 2) -> bytes:
    return header.ContentHeader(body_size=size, properties=commands.Basic.Properties(**properties)).marshal()


def comparable(message: Message, properties: dict[str, Any]) -> Message:
    """Without what is made up at each reading."""
    if not properties.get("message_id"):
        message = replace(message, id="minted")
    if not properties.get("timestamp"):
        message = replace(message, timestamp=0)
    return message


def usual(**others: Any) -> dict[str, Any]:
    return {**USUAL, **others}


def learned(**others: Any) -> Alike:
    alike = Alike()
    FromFrames(method(), head(usual(**others)), b"{}", alike).read()
    return alike


ids = st.one_of(st.uuids().map(str), st.text(max_size=70), st.just(""))
few = st.sampled_from
likely = st.fixed_dictionaries(
    {
        "message_id": ids,
        "timestamp": st.one_of(
            st.just(SENT), st.integers(0, 2**33).map(lambda s: datetime.fromtimestamp(s, UTC))
        ),
    },
    optional={
        "content_type": few(["application/json", "", "text/plain"]),
        "delivery_mode": few([1, 2]),
        "priority": few([0, 4, 9, 200]),
        "message_type": few(["emails.welcome", "emails.receipt", "é" * 40, ""]),
        "app_id": few(["shop", "mail"]),
        "user_id": few(["guest"]),
        "correlation_id": few(["1", "2"]),
        "expiration": few(["60000"]),
        "headers": few([{"a": 1}, {"brokerjobs-attempt": 3, "brokerjobs-key": "a.b"}]),
    },
)
routes = few(
    [("jobs", "emails.welcome"), ("jobs", "emails.receipt"), ("", "emails"), ("jobs.delay", "1.0.emails.é")]
)


@given(st.lists(st.tuples(routes, likely, st.binary(max_size=20)), max_size=12))
def test_reading_by_comparing_is_reading(
    messages: list[tuple[tuple[str, str], dict[str, Any], bytes]],
) -> None:
    alike = Alike()
    for (exchange, route), properties, body in messages:
        arrival = FromFrames(method(route, exchange), head(properties, len(body)), body, alike)
        for _ in range(2):  # the second time by what was learned at the first, where that is possible
            message, sent = arrival.read()
            whole, sent_whole = read_whole(arrival)
            assert comparable(message, properties) == comparable(whole, properties)
            assert sent == sent_whole


@given(st.integers(0, 255), st.integers(0, 120), st.binary(max_size=3))
def test_one_wrong_byte_makes_no_difference_to_what_is_read(byte: int, at: int, more: bytes) -> None:
    alike, raw = learned(), bytearray(head(USUAL))
    raw[12 + at % (len(raw) - 12)] = byte
    arrival = FromFrames(method(), bytes(raw) + more, b"{}", alike)
    try:
        whole = read_whole(arrival)
    except Exception as error:
        with pytest.raises(type(error)):
            arrival.read()
    else:
        message, sent = arrival.read()
        given = dict(arrival.properties)
        assert (comparable(message, given), sent) == (comparable(whole[0], given), whole[1])


def test_a_header_that_ends_within_the_time_is_not_like_the_others() -> None:
    last = usual(message_type=None)
    raw = head(last)
    for cut in range(len(raw)):
        assert learned(message_type=None).read(route_of(method()), raw[:cut], b"{}") is None


def test_messages_that_differ_in_id_time_and_body_are_alike() -> None:
    other = usual(
        message_id="0193c1a0-0000-7000-8000-000000000002", timestamp=datetime(2027, 1, 1, tzinfo=UTC)
    )
    message = learned().read(route_of(method()), head(other, 5), b"other")
    assert message is not None
    assert (message.id, message.timestamp, message.body) == (other["message_id"], 1798761600, b"other")
    assert (message.job, message.priority) == ("emails.welcome", 4)


@pytest.mark.parametrize(
    "others",
    [
        {"priority": 5},
        {"message_type": "emails.receipt"},
        {"message_id": "7"},
        {"app_id": "shop"},
        {"headers": {"a": 1}},
        {"timestamp": datetime.fromtimestamp(0, UTC)},
        {"message_id": "é" * 18},
    ],
)
def test_messages_that_differ_in_anything_else_are_not(others: dict[str, Any]) -> None:
    assert learned().read(route_of(method()), head(usual(**others)), b"{}") is None


@pytest.mark.parametrize(
    "others", [{"headers": {"a": 1}}, {"correlation_id": "1"}, {"expiration": "5"}, {"message_id": "i" * 64}]
)
def test_what_differs_from_message_to_message_is_not_learned(others: dict[str, Any]) -> None:
    assert learned(**others).read(route_of(method()), head(usual(**others)), b"{}") is None


def test_only_so_many_routes_are_remembered() -> None:
    alike = Alike()
    for number in range(3 * MOST_ROUTES):
        FromFrames(method(f"emails.{number}"), head(USUAL), b"{}", alike).read()
    known = [alike.read(route_of(method(f"emails.{n}")), head(USUAL), b"{}") for n in range(3 * MOST_ROUTES)]
    assert 0 < sum(message is not None for message in known) <= MOST_ROUTES


def route_of(payload: bytes) -> bytes:
    return payload[4 + 1 + len("ctag") + 9 :]
