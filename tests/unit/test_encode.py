"""A message written by hand is, to the client library, the message that it would have written itself."""

from __future__ import annotations

from itertools import product
from typing import Any

import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands

from brokerjobs import Message
from brokerjobs.amqp import encode
from brokerjobs.amqp.encode import MOST_KNOWN, Envelopes, Unwritable
from brokerjobs.amqp.frames import frame
from brokerjobs.amqp.properties import read_content_header
from brokerjobs.amqp.wire import from_wire, to_pamqp
from brokerjobs.message import LATEST, decode

short = st.text(min_size=1, max_size=63)  # the library writes no empty ones
scalars = st.one_of(st.text(max_size=300), st.booleans(), st.integers(-(2**63), 2**63 - 1))
messages = st.builds(
    Message,
    job=short,
    routing_key=st.just("a.b"),
    body=st.binary(max_size=50),
    id=short,
    priority=st.none() | st.integers(0, 255),
    content_type=st.none() | short,
    content_encoding=st.none() | short,
    timestamp=st.integers(1, 2**32 - 1),
    correlation_id=st.none() | short,
    reply_to=st.none() | short,
    app_id=st.none() | short,
    user_id=st.just("") | short,
    attempt=st.integers(1, 2**40),
    due=st.integers(0, LATEST),
    headers=st.dictionaries(st.text(min_size=1, max_size=30), scalars, max_size=4),
    marks=st.dictionaries(st.sampled_from(["error", "history"]), st.text(max_size=200), max_size=2),
)


@given(messages)
def test_header_is_that_of_the_library(message: Message) -> None:
    properties = message.properties()
    payload = encode.header(properties, len(message.body))
    read: Any = pamqp.frame.unmarshal(frame(2, 1, payload))[2]
    theirs = pamqp.frame.unmarshal(
        pamqp.frame.marshal(pamqp.header.ContentHeader(0, len(message.body), to_pamqp(message)), 1)
    )[2]
    assert (read.class_id, read.weight, read.body_size) == (60, 0, len(message.body))
    assert dict(read.properties) == dict(theirs.properties)  # type: ignore[union-attr]
    again = decode(from_wire(read_content_header(payload).properties), message.body, routing_key="a.b")
    assert (again.id, again.timestamp, again.due) == (message.id, message.timestamp, message.due)


few = st.sampled_from([None, "json", "é" * 63])
PARTS: dict[str, st.SearchStrategy[Any]] = {
    "job": st.sampled_from(["a.b", "a.c"]),
    "body": st.sampled_from([0, 1, 200, 4088, 4089, 9000]).map(bytes),
    "id": short,
    "priority": st.none() | st.integers(0, 9),
    "content_type": few,
    "content_encoding": few,
    "timestamp": st.integers(1, 2**32 - 1),
    "correlation_id": few,
    "reply_to": few,
    "app_id": few,
    "user_id": st.sampled_from(["", "guest"]),
    "attempt": st.sampled_from([1, 2]),
    "due": st.sampled_from([0, 7]),
    "headers": st.sampled_from([{}, {"n": 1}]),
    "marks": st.sampled_from([{}, {"error": "x"}]),
}
changes = st.sampled_from(sorted(PARTS)).flatmap(lambda name: PARTS[name].map(lambda value: {name: value}))


@given(st.lists(changes, max_size=20))
def test_whatever_was_sent_before_a_message_is_that_of_the_library(different: list[dict[str, Any]]) -> None:
    envelopes = Envelopes(5, 4096)
    for more, key in product([{}, *different, {}], ["a.b", "c.d"]):
        message = Message(**{"job": "a.b", "routing_key": "a.b", "body": b"{}"} | more)
        data, read = b"".join(envelopes.frames("jobs", key, message)), list[Any]()
        while data:
            length, channel, found = pamqp.frame.unmarshal(data)
            assert channel == 5
            read.append(found)
            data = data[length:]
        publish, head, *parts = read
        theirs: Any = pamqp.frame.unmarshal(
            pamqp.frame.marshal(pamqp.header.ContentHeader(0, len(message.body), to_pamqp(message)), 5)
        )[2]
        assert (publish.exchange, publish.routing_key, publish.mandatory) == ("jobs", key, True)
        assert (head.body_size, dict(head.properties)) == (len(message.body), dict(theirs.properties))
        assert b"".join(part.value for part in parts) == message.body


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "é" * 128},
        {"id": "\ud800"},
        {"timestamp": -1},
        {"job": "x" * 256},
        {"app_id": ["shop"]},
        {"priority": [4]},
        {"body": "{}"},
        {"body": "{}", "headers": {"a": 1}},
        {"body": "x" * 5000},
    ],
)
def test_what_amqp_has_no_form_for_is_told_of_the_second_message_too(wrong: dict[str, Any]) -> None:
    envelopes = Envelopes(5, 4096)
    for more in {}, wrong, {}:
        message = Message(**{"job": "a.b", "routing_key": "a.b", "body": b"{}"} | more)
        if more:
            with pytest.raises(Unwritable):
                envelopes.frames("jobs", "a.b", message)
        else:
            assert envelopes.frames("jobs", "a.b", message)


def test_envelopes_do_not_pile_up() -> None:
    envelopes = Envelopes(5, 4096)
    for number in range(3 * MOST_KNOWN):
        envelopes.frames("jobs", "a.b", Message(job=f"a.{number}", routing_key="a.b", body=b"{}"))
    assert len(envelopes._known) <= MOST_KNOWN


def test_properties_of_which_each_message_has_its_own_are_not_learned() -> None:
    envelopes = Envelopes(5, 4096)
    for more in {"correlation_id": "1"}, {"reply_to": "1"}, {"headers": {"n": 1}}, {"due": 1}, {"attempt": 2}:
        envelopes.frames("jobs", "a.b", Message(**{"job": "a.b", "routing_key": "a.b", "body": b"{}"} | more))
    assert not envelopes._known


@given(st.from_regex(r"[a-zA-Z0-9-_.:]{0,120}", fullmatch=True), st.text(max_size=63), st.integers(1, 65535))
def test_first_frame_is_that_of_the_library(exchange: str, key: str, channel: int) -> None:
    theirs = commands.Basic.Publish(exchange=exchange, routing_key=key, mandatory=True)
    assert encode.publish(channel, exchange, key) == pamqp.frame.marshal(theirs, channel)


@pytest.mark.parametrize(
    ("size", "largest", "parts"),
    [(0, 4096, []), (1, 4096, [1]), (4088, 4096, [4088]), (4089, 4096, [4088, 1])],
)
def test_body_takes_as_many_frames_as_it_needs(size: int, largest: int, parts: list[int]) -> None:
    _, *bodies = encode.content(7, {"message_id": "a"}, b"x" * size, largest)
    read = [pamqp.frame.unmarshal(frame) for frame in bodies]
    assert [len(found[2].value) for found in read] == parts  # type: ignore[union-attr]
    assert {found[1] for found in read} <= {7}
    assert all(len(frame) <= largest for frame in bodies)


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"type": "é" * 128}, "type is longer than 255 bytes"),
        ({"message_id": "\ud800"}, "message_id: .*surrogates"),
        ({"headers": {"a" * 256: 1}}, "header's name is longer"),
        ({"headers": {"a": 2**63}}, "header 'a' is int"),
        ({"headers": {"a": [1]}}, "header 'a' is list"),
        ({"headers": {"a": "\ud800"}}, "header 'a'"),
        ({"priority": 256}, "priority 256"),
        ({"timestamp": -1}, "timestamp -1"),
    ],
)
def test_what_amqp_has_no_form_for_is_told(properties: dict[str, Any], words: str) -> None:
    with pytest.raises(Unwritable, match=words):
        encode.header(properties, 0)


@pytest.mark.parametrize("names", [("x" * 256, "a"), ("jobs", "x" * 256), ("jobs", "\ud800")])
def test_route_that_amqp_has_no_form_for_is_told(names: tuple[str, str]) -> None:
    with pytest.raises(Unwritable):
        encode.publish(1, *names)
