"""Whatever a publisher sends, the worker lives, the bad message dies with a reason, the good one behind it runs."""

from __future__ import annotations

import datetime as dt
import gzip
import json
from decimal import Decimal
from typing import Any

import pytest
from structlog.testing import capture_logs

from brokerjobs import Consumer, Retry
from brokerjobs.dead_letters import DeadLetters, Filter
from brokerjobs.settings import Settings
from tests import amqp, hostile
from tests.conftest import BY_LIBRARY, StartWorker
from tests.waiting import eventually_async


def body_of(size: int) -> bytes:
    """A good one of so many bytes."""
    return b'{"user_id": 9' + b" " * (size - 14) + b"}"


LIMIT = 1024 * 1024  # bytes of body, of our own
LARGEST = 16 * LIMIT  # of the broker

# What arrives, the reason that it dies of, and words of the error that a person reads.
BAD_BODIES: list[tuple[str, bytes, dict[str, Any], str, str]] = [
    ("not json", b'{"user_id": ', {}, "json", "the body is not JSON: EOF while parsing"),
    ("utf-16", '{"user_id": 7}'.encode("utf-16"), {}, "json", "it looks like UTF-16; send UTF-8"),
    ("utf-16 unmarked", '{"user_id": 7}'.encode("utf-16-le"), {}, "json", "it looks like UTF-16"),
    ("latin-1", '{"name": "é"}'.encode("latin-1"), {}, "json", "it is not UTF-8"),
    ("byte order mark", b'\xef\xbb\xbf{"user_id": 7}', {}, "json", "byte order mark; send UTF-8 without one"),
    ("not a number", b'{"user_id": NaN}', {}, "json", "it has no word for NaN and infinity"),
    ("infinity", b'{"user_id": -Infinity}', {}, "json", "it has no word for NaN and infinity"),
    ("infinite", b'{"user_id": 1e999}', {}, "json", "a number too large to represent"),
    ("a bare string", b'"seven"', {}, "json", "is a JSON string; send an object"),
    ("null", b"null", {}, "json", "is a JSON null; send an object"),
    ("too deep", b"[" * 100_000, {}, "json", "nested deeper than 64 levels"),
    ("too deep objects", b'{"a":' * 100_000, {}, "json", "nested deeper than 64 levels"),
    (
        "too many digits",
        b'{"user_id": ' + b"9" * 5_000 + b"}",
        {},
        "json",
        "a number of more than 4,300 digits",
    ),
    ("a name twice", b'{"user_id": 6, "user_id": 8}', {}, "json", "the name 'user_id' stands twice"),
    ("lone surrogate", b'{"user_id": "\\ud800"}', {}, "json", "half a character"),
    ("control character", b'{"user_id": "\x00"}', {}, "json", "control character"),
    ("wrong type", b'{"user_id": "seven"}', {}, "arguments", "user_id"),
    ("too precise", b'{"user_id": 7.5}', {}, "arguments", "user_id"),
    ("empty", b"", {}, "arguments", "user_id"),
    ("missing argument", b"{}", {}, "arguments", "user_id"),
    ("unexpected argument", b'{"user_id": 7, "age": 3}', {}, "arguments", "age"),
    ("too many positional", b"[7, 8, 9]", {}, "arguments", "positional"),
    (
        "a form",
        b"user_id=7",
        {"content_type": "application/x-www-form-urlencoded"},
        "content_type",
        "send application/json",
    ),
    (
        "pickled",
        b"\x80\x04K\x07.",
        {"content_type": "application/x-python-serialize"},
        "content_type",
        "send app",
    ),
    ("compressed", b"\x1f\x8b\x08", {"content_encoding": "gzip"}, "encoding", "takes plain UTF-8 only"),
    (
        "a bomb",
        gzip.compress(b"[" * 10_000_000),
        {"content_encoding": "gzip"},
        "encoding",
        "plain UTF-8 only",
    ),
    ("a bomb that says nothing", gzip.compress(b"[" * 10_000_000), {}, "json", "it looks like gzip"),
    (
        "one byte too large",
        body_of(LIMIT + 1),
        {},
        "too_large",
        "1,048,577 bytes, above the limit of 1,048,576",
    ),
    ("the largest", b"x" * LARGEST, {}, "too_large", "16,777,216 bytes, above the limit"),
    ("unknown job", b"{}", {"type": "emails.goodbye"}, "unknown_job", "it knows: emails.welcome"),
]


@pytest.fixture
def ran() -> list[int]:
    return []


@pytest.fixture
def consumer(ran: list[int]) -> Consumer:
    consumer = Consumer("emails", retry=Retry(delays=[0.125]))

    @consumer.job()
    async def welcome(user_id: int) -> None:
        ran.append(user_id)

    return consumer


async def test_bad_bodies_die_with_their_reason_and_the_good_message_behind_them_runs(
    consumer: Consumer, ran: list[int], start_worker: StartWorker, url: str
) -> None:
    await start_worker(consumer)

    for _, body, properties, _, _ in BAD_BODIES:
        amqp.publish(url, properties.get("type", "emails.welcome"), body, **properties)
    amqp.publish(url, "emails.welcome", b'{"user_id": 7}')
    amqp.publish(url, "emails.welcome", body_of(LIMIT))

    await eventually_async(lambda: sorted(ran) == [7, 9])
    await eventually_async(lambda: amqp.ready(url, "emails.dead") == len(BAD_BODIES))
    found = amqp.peek(url, "emails.dead")
    assert all(dead.properties.message_id for dead in found)
    told = {
        (dead.body, dead.properties.content_encoding, dead.properties.type): dead.headers for dead in found
    }
    for name, body, properties, reason, words in BAD_BODIES:
        job = properties.get("type", "emails.welcome")
        headers = told[(body, properties.get("content_encoding"), job)]
        assert headers["brokerjobs-reason"] == reason, name
        assert words in headers["brokerjobs-error"], name


ODD_PROPERTIES: list[dict[str, Any]] = [
    {"headers": {"decimal": Decimal("1.5"), "list": [1, "a", None], "table": {"deep": {"er": 1}}}},
    {"headers": {"bytes": b"\x00\xff"}},
    {"headers": {"time": dt.datetime(2020, 1, 1, tzinfo=dt.UTC), "none": None, "true": True, "big": 2**62}},
    {"headers": {"x-death": [{"queue": "emails", "reason": "rejected", "count": 9}], "x-delivery-count": 99}},
    {"headers": {"brokerjobs-attempt": "many", "brokerjobs-hop": -5, "brokerjobs-due": Decimal("1.5")}},
    {"headers": {"brokerjobs-history": "not json", "brokerjobs-first-at": "yesterday"}},
    {"headers": {"huge": "x" * 100_000}},
    {"headers": {f"many-{number}": "x" * 100 for number in range(500)}},
    {"user_id": "guest"},
    {"message_id": "x" * 255, "correlation_id": "y" * 255, "reply_to": "z" * 255, "app_id": "a" * 255},
    {"type": ""},
    {"priority": 200},
    {"timestamp": 1},
    {"expiration": "60000"},
    {"content_type": "application/json; charset=utf-8"},
    {"content_type": "text/plain"},
]


async def test_odd_properties_stop_neither_a_job_nor_its_retry_death_and_replay(
    start_worker: StartWorker, url: str, settings: Settings
) -> None:
    consumer = Consumer("emails", retry=Retry(delays=[0.125]))
    attempts: list[int] = []

    @consumer.job()
    async def welcome(user_id: int) -> None:
        attempts.append(user_id)
        raise OSError("mail server is away")

    await start_worker(consumer)
    for number, properties in enumerate(ODD_PROPERTIES):
        amqp.publish(url, "emails.welcome", json.dumps({"user_id": number}).encode(), **properties)
    for number, raw in enumerate(hostile.ODD.values(), len(ODD_PROPERTIES)):
        hostile.publish(url, "emails.welcome", json.dumps({"user_id": number}).encode(), raw)
    count = len(ODD_PROPERTIES) + len(hostile.ODD)

    await eventually_async(lambda: amqp.ready(url, "emails.dead") == count)
    assert sorted(attempts) == sorted([*range(count)] * 2)
    assert (await DeadLetters(settings, "emails").replay()).done == count
    await eventually_async(lambda: amqp.ready(url, "emails.dead") == count and len(attempts) == 4 * count)
    assert sorted(attempts) == sorted([*range(count)] * 4)
    for found in amqp.peek(url, "emails.dead"):
        assert found.headers["brokerjobs-reason"] == "exhausted"
        assert (found.headers["brokerjobs-attempt"], found.headers["brokerjobs-generation"]) == (2, 1)
        assert {"x-death", "CC", "BCC"}.isdisjoint(found.headers)


@pytest.mark.parametrize("lane", ["from the stream", BY_LIBRARY])
async def test_what_the_client_library_cannot_read_dies_and_ends_no_session(
    consumer: Consumer,
    ran: list[int],
    start_worker: StartWorker,
    url: str,
    settings: Settings,
    lane: str,
) -> None:
    settings = settings.model_copy(update={"fast_lane": lane != BY_LIBRARY})
    later = Consumer("later")
    body = b'{"user_id": 5}'
    with capture_logs() as lines:
        await start_worker(consumer, settings=settings)
        for properties, _ in hostile.UNREADABLE.values():
            hostile.publish(url, "emails.welcome", body, properties)
            hostile.publish(url, "later.welcome", body, properties)
        hostile.publish(url, b"emails.caf\xe9", body, b"\x00\x00")
        amqp.publish(url, "emails.welcome", b'{"user_id": 7}')
        await eventually_async(lambda: ran == [7])
        await start_worker(later, settings=settings)  # and sweeps

        count = len(hostile.UNREADABLE)
        await eventually_async(lambda: amqp.ready(url, "emails.dead") == count + 1)
        await eventually_async(lambda: amqp.ready(url, "later.dead") == count)

        # Past all workers: here only who looks through the queue meets them.
        hostile.publish(url, "emails.dead", body, hostile.UNREADABLE["id"][0], exchange="")
        letters = (await DeadLetters(settings, "emails").page()).letters

        assert {(letter.reason, letter.message.body) for letter in letters} == {("undecodable", body)}
        said = "\n".join(letter.error for letter in letters)
        for words in [words for _, words in hostile.UNREADABLE.values()] + [
            r"key is not UTF-8: emails.caf\xe9"
        ]:
            assert words in said
        assert {letter.message.job for letter in letters} == {
            "emails.welcome",
            "emails.dead",
            r"emails.caf\xe9",
            r"\xff",
        }
        dead = await DeadLetters(settings, "later").page()
        assert {(letter.reason, letter.message.body) for letter in dead.letters} == {("undecodable", body)}

        # Who has looked at them, and found their arguments good, may run them.
        replayed = await DeadLetters(settings, "emails").replay(Filter(job="emails.welcome"))
        assert replayed.done == count - 1
        await eventually_async(lambda: ran == [7] + [5] * (count - 2))  # less the odd type and content_type
    assert [line["event"] for line in lines].count("consuming") == 2
    assert "session ended" not in [line["event"] for line in lines]


async def test_copies_to_other_queues_by_cc_are_not_repeated_by_retries(
    start_worker: StartWorker, url: str
) -> None:
    emails = Consumer("emails", retry=Retry(delays=[0.125]))
    audit = Consumer("audit")
    seen: list[str] = []

    @emails.job()
    async def welcome() -> None:
        seen.append("emails")
        if seen.count("emails") == 1:
            raise OSError

    @audit.job(match="#")
    async def record() -> None:
        seen.append("audit")

    await start_worker(emails, audit)
    amqp.publish(url, "emails.welcome", b"{}", headers={"CC": ["audit.record"]})

    await eventually_async(lambda: seen.count("emails") == 2)
    assert seen.count("audit") == 1


async def test_expired_job_dies_unrun(
    consumer: Consumer, ran: list[int], start_worker: StartWorker, url: str
) -> None:
    await start_worker(consumer)

    amqp.publish(url, "emails.welcome", b'{"user_id": 7}', headers={"brokerjobs-not-after": 1})

    await eventually_async(lambda: amqp.ready(url, "emails.dead") == 1)
    (dead,) = amqp.peek(url, "emails.dead")
    assert dead.headers["brokerjobs-reason"] == "expired"
    assert ran == []
