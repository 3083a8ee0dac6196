"""Whatever a publisher sends, the worker lives, the bad message dies with a reason, the good one behind it runs."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import pytest

from brokerjobs import Consumer, Retry
from tests import amqp
from tests.conftest import StartWorker
from tests.waiting import eventually_async

BAD_BODIES: list[tuple[str, bytes, dict[str, Any], str]] = [
    ("not json", b'{"user_id": ', {}, "json"),
    ("utf-16", '{"user_id": 7}'.encode("utf-16"), {}, "json"),
    ("latin-1", '{"name": "é"}'.encode("latin-1"), {}, "json"),
    ("byte order mark", b'\xef\xbb\xbf{"user_id": 7}', {}, "json"),
    ("not a number", b'{"user_id": NaN}', {}, "json"),
    ("infinite", b'{"user_id": 1e999}', {}, "json"),
    ("a bare string", b'"seven"', {}, "json"),
    ("too deep", b"[" * 100_000, {}, "json"),
    ("too many digits", b'{"user_id": ' + b"9" * 5_000 + b"}", {}, "json"),
    ("lone surrogate", b'{"user_id": "\\ud800"}', {}, "json"),
    ("wrong type", b'{"user_id": "seven"}', {}, "arguments"),
    ("missing argument", b"{}", {}, "arguments"),
    ("unexpected argument", b'{"user_id": 7, "age": 3}', {}, "arguments"),
    ("too many positional", b"[7, 8, 9]", {}, "arguments"),
    (
        "wrong content type",
        b"user_id=7",
        {"content_type": "application/x-www-form-urlencoded"},
        "content_type",
    ),
    ("compressed", b"\x1f\x8b\x08", {"content_encoding": "gzip"}, "encoding"),
    ("too large", b'{"user_id": 7, "x": "' + b"x" * 1024 * 1024 + b'"}', {}, "too_large"),
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

    for _, body, properties, _ in BAD_BODIES:
        amqp.publish(url, "emails.welcome", body, **properties)
    amqp.publish(url, "emails.welcome", b'{"user_id": 7}')

    await eventually_async(lambda: ran == [7])
    await eventually_async(lambda: amqp.ready(url, "emails.dead") == len(BAD_BODIES))
    dead = amqp.peek(url, "emails.dead")
    assert {(found.body, found.headers["brokerjobs-reason"]) for found in dead} == {
        (body, reason) for _, body, _, reason in BAD_BODIES
    }
    assert all(found.headers["brokerjobs-error"] for found in dead)
    assert all(found.properties.message_id for found in dead)


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


async def test_odd_properties_neither_stop_a_job_nor_its_retry_nor_its_death(
    start_worker: StartWorker, url: str
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

    await eventually_async(lambda: amqp.ready(url, "emails.dead") == len(ODD_PROPERTIES))
    assert sorted(attempts) == sorted([*range(len(ODD_PROPERTIES))] * 2)
    for found in amqp.peek(url, "emails.dead"):
        assert found.headers["brokerjobs-reason"] == "exhausted"
        assert found.headers["brokerjobs-attempt"] == 2
        assert not [name for name in found.headers if name.startswith("x-")]


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
