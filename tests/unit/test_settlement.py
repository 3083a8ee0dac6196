"""Outcome in, frames out: the copy is confirmed before the original is acked, and always fits into a frame."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import encode

from brokerjobs import delay, topology
from brokerjobs.amqp.connection import ConnectionLost
from brokerjobs.amqp.settlement import Settlement, dead_letter, history, next_attempt, write_history
from brokerjobs.amqp.wire import from_pamqp, to_pamqp
from brokerjobs.errors import BrokerUnreachable, MessageTooLarge, PublishRefused, PublishUnknown, Unroutable
from brokerjobs.failure import Failure
from brokerjobs.message import PREFIX, Message, decode
from brokerjobs.outcome import DeadLettered, Outcome, Released, Retried, Succeeded
from brokerjobs.suspects import COUNTED
from brokerjobs.topology import Names
from brokerjobs.transport import Publication
from tests.unit.doubles import FakeDelivery, FakePublisher

NAMES = Names()
MESSAGE = Message(
    job="emails.welcome",
    routing_key="users.created",
    id="7",
    body=b'{"user_id": 7}',
    priority=9,
    attempt=2,
    correlation_id="c1",
    headers={"tenant": "shop"},
)
FAILURE = Failure(kind="ConnectionError", text="gateway is away", traceback="Traceback …")
RETRIED = Retried(delay=5, reason="failed", failure=FAILURE, began=1_700_000_000_000)
DEAD = DeadLettered(reason="exhausted", failure=FAILURE)


async def settle(outcome: Outcome, *errors: Exception) -> tuple[list[str], FakePublisher, FakeDelivery]:
    journal: list[str] = []
    delivery, publisher = FakeDelivery("emails", journal), FakePublisher(journal, *errors)
    settlement = Settlement(NAMES, publisher, timeout=10.0)
    await settlement.follow_up(MESSAGE, outcome, delivery.queue)
    await settlement.settle(delivery, outcome)
    return journal, publisher, delivery


def arrived(publication: Publication) -> Message:
    """What comes out of the queue into which the copy was published."""
    frame = to_pamqp(publication.message).marshal()
    properties = type(to_pamqp(MESSAGE))()
    properties.unmarshal(int.from_bytes(frame[:2], "big"), frame[2:])
    return decode(from_pamqp(properties), publication.message.body, routing_key=publication.routing_key)


def failed(attempt: int, text: str) -> Retried:
    return Retried(delay=1, reason="failed", failure=Failure(text=text), began=attempt)


# ---- the order of frames


@pytest.mark.parametrize(
    ("outcome", "frames"),
    [
        (Succeeded(7), ["ack"]),
        (RETRIED, ["confirmed", "ack"]),
        (Retried(delay=0, reason="unknown_job", spends=False), ["confirmed", "ack"]),
        (DEAD, ["confirmed", "ack"]),
        (Released("the worker is stopping"), ["requeue"]),
    ],
)
async def test_copy_is_confirmed_before_the_original_is_acked(outcome: Outcome, frames: list[str]) -> None:
    journal, publisher, _ = await settle(outcome)

    assert journal == frames
    assert publisher.timeouts == [10.0] * frames.count("confirmed")


@pytest.mark.parametrize("outcome", [RETRIED, DEAD])
@pytest.mark.parametrize(
    "error",
    [PublishUnknown("no confirm"), BrokerUnreachable("away"), Unroutable("returned"), MessageTooLarge("!")],
)
async def test_original_stays_unacked_while_its_copy_is_not_confirmed(
    outcome: Outcome, error: Exception
) -> None:
    journal: list[str] = []
    delivery = FakeDelivery("emails", journal)
    settlement = Settlement(NAMES, FakePublisher(journal, error), timeout=10.0)

    with pytest.raises((PublishRefused, PublishUnknown)):
        await settlement.follow_up(MESSAGE, outcome, delivery.queue)

    assert journal == ["not confirmed"]
    assert delivery.is_live


@pytest.mark.parametrize("outcome", [Succeeded(), RETRIED, DEAD, Released("x")])
async def test_delivery_of_an_ended_session_is_not_settled(outcome: Outcome) -> None:
    journal: list[str] = []
    delivery = FakeDelivery("emails", journal)
    delivery.end_session()

    with pytest.raises(ConnectionLost):
        await Settlement(NAMES, FakePublisher(journal), timeout=10.0).settle(delivery, outcome)

    assert "ack" not in journal
    assert "requeue" not in journal


# ---- the next attempt


def test_next_attempt_goes_to_exactly_the_queue_that_failed() -> None:
    publication = next_attempt(MESSAGE, RETRIED, "emails", NAMES)

    assert (publication.exchange, publication.routing_key) == topology.route_to_queue(NAMES, "emails", 5)


def test_next_attempt_is_the_same_job_once_more() -> None:
    before = int(time.time() * 1000)

    copy = arrived(next_attempt(MESSAGE, RETRIED, "emails", NAMES))

    for name in ("job", "routing_key", "id", "body", "priority", "correlation_id", "headers", "timestamp"):
        assert getattr(copy, name) == getattr(MESSAGE, name)
    assert (copy.attempt, copy.hop, copy.first_at) == (3, 1, 1_700_000_000_000)
    assert before + 5000 <= copy.due <= time.time() * 1000 + 5000


def test_first_attempt_is_remembered_over_all() -> None:
    first = arrived(next_attempt(MESSAGE, failed(1000, "a"), "emails", NAMES))

    second = arrived(next_attempt(first, failed(2000, "b"), "emails", NAMES))

    assert second.first_at == 1000
    assert [(entry.attempt, entry.error) for entry in history(second)] == [(2, "a"), (3, "b")]


def test_retry_later_spends_no_attempt() -> None:
    copy = arrived(
        next_attempt(MESSAGE, Retried(delay=5, reason="retry_later", spends=False), "emails", NAMES)
    )

    assert (copy.attempt, copy.hop) == (2, 1)
    assert history(copy) == []


def test_unknown_job_is_counted() -> None:
    outcome = Retried(delay=30, reason="unknown_job", spends=False, failure=Failure(text="who?"))

    copy = arrived(next_attempt(MESSAGE, outcome, "emails", NAMES))
    again = arrived(next_attempt(copy, outcome, "emails", NAMES))

    assert (copy.unknown, again.unknown, again.attempt) == (1, 2, 2)


def test_crashes_are_counted_in_the_next_attempt_and_in_the_dead_letter() -> None:
    crashed = Retried(delay=1, reason="crashed", failure=FAILURE)

    assert next_attempt(MESSAGE, RETRIED, "emails", NAMES).message.crashes == 0
    once = arrived(next_attempt(MESSAGE, crashed, "emails", NAMES))
    assert (once.crashes, once.attempt) == (1, 3)
    last = dead_letter(once, DeadLettered(reason="crashed", failure=FAILURE), "emails", NAMES)
    assert arrived(last).crashes == 2
    assert arrived(dead_letter(once, DEAD, "emails", NAMES)).crashes == 1


def test_redelivery_is_counted_in_a_copy_that_is_otherwise_the_same() -> None:
    waiting = replace(MESSAGE, not_before=2_000_000_000_000, not_after=2_100_000_000_000, first_at=1_000)

    publication = next_attempt(waiting, COUNTED, "emails", NAMES)

    assert publication.routing_key.endswith("@q.emails")
    copy = arrived(publication)
    assert replace(copy, hop=0, redeliveries=0, marks={}) == replace(waiting, hop=0)
    assert (copy.redeliveries, copy.hop) == (1, waiting.hop)  # the same run still
    again = arrived(next_attempt(copy, COUNTED, "emails", NAMES))
    assert again.redeliveries == 2
    assert arrived(next_attempt(again, RETRIED, "emails", NAMES)).redeliveries == 0  # it has given an answer


def test_wish_to_run_later_is_granted_once() -> None:
    wishing = MESSAGE.copy(not_before=2_000_000_000_000)

    copy = arrived(
        next_attempt(wishing, Retried(delay=5, reason="not_before", spends=False), "emails", NAMES)
    )

    assert copy.not_before == 0
    assert copy.due


@pytest.mark.parametrize("seconds", [0, 0.001, 5, 3600, delay.LONGEST])
def test_any_wait_has_its_route(seconds: float) -> None:
    publication = next_attempt(MESSAGE, Retried(delay=seconds, reason="failed"), "emails", NAMES)

    assert len(publication.routing_key) <= 255


# ---- dead letters


def test_dead_letter_tells_people_what_happened() -> None:
    publication = dead_letter(MESSAGE, DEAD, "emails", NAMES)
    letter = arrived(publication)

    assert (publication.exchange, publication.routing_key) == ("jobs.dead", "emails")
    assert letter.marks["reason"] == "exhausted"
    assert letter.marks["error"] == "gateway is away"
    assert letter.marks["error-kind"] == "ConnectionError"
    assert letter.marks["traceback"] == "Traceback …"
    assert letter.marks["queue"] == "emails"
    assert ":" in letter.marks["worker"]
    assert abs(letter.died_at - time.time() * 1000) < 5000
    assert [(entry.attempt, entry.error) for entry in history(letter)] == [
        (2, "ConnectionError: gateway is away")
    ]


def test_dead_letter_could_run_again_as_it_was() -> None:
    letter = arrived(dead_letter(MESSAGE, DEAD, "emails", NAMES))

    for name in ("job", "routing_key", "id", "body", "priority", "attempt", "headers"):
        assert getattr(letter, name) == getattr(MESSAGE, name)


def test_dead_letter_stays_in_its_namespace() -> None:
    assert dead_letter(MESSAGE, DEAD, "emails", Names("shop")).exchange == "shop.jobs.dead"


# ---- history


def test_history_of_nothing_is_empty() -> None:
    assert write_history([]) == "[]"
    assert history(MESSAGE) == []


def failures(count: int, text: str = "no") -> Message:
    message = MESSAGE
    for attempt in range(count):
        message = arrived(next_attempt(message, failed(attempt, f"{attempt} {text}"), "emails", NAMES))
    return message


def test_history_keeps_the_latest_twenty() -> None:
    entries = history(failures(30))

    assert [entry.error for entry in entries] == [f"{n} no" for n in range(10, 30)]
    assert [entry.attempt for entry in entries] == list(range(12, 32))


@pytest.mark.parametrize(
    "text", ["x" * 5000, '"\\' * 500, "\x00\x01\x1f" * 500, "é€😀" * 500, "\udcff" * 500]
)
def test_history_stays_readable_whatever_the_errors_are(text: str) -> None:
    """JSON spells some characters in six bytes; then fewer entries are kept, but none is torn."""
    message = MESSAGE

    for attempt in range(25):
        message = arrived(next_attempt(message, failed(attempt, f"{attempt} {text}"), "emails", NAMES))

        entries = history(message)
        assert len(entries) >= min(attempt + 1, 6)
        assert entries[-1].error.startswith(f"{attempt} ")


HOSTILE_HISTORIES = [
    "",
    "x",
    "{}",
    "7",
    "null",
    "[1, null, [], {}]",
    '[{"attempt": "x", "at": [], "error": {}}]',
    '[{"attempt": 1e999, "at": NaN, "error": null}]',
    '[{"attempt": ' + "9" * 5000 + "}]",
    '[{"at": ' + "9" * 4000 + "}]",
    '[{"error": "\\ud800"}]',
    '[{"error": "' + "x" * 100_000 + '"}]',
    "[" * 100_000,
    "[" * 7_000,
    json.dumps([{"error": "x" * 300, "more": "y" * 300}] * 500),
    json.dumps([{"replay": -1, "at": -(2**70)}]),
]


@pytest.mark.parametrize("written", HOSTILE_HISTORIES, ids=lambda text: text[:30])
def test_history_that_a_stranger_wrote_does_no_harm(written: str) -> None:
    message = decode({"headers": {PREFIX + "history": written}}, b"", routing_key="emails.welcome")

    letter = arrived(dead_letter(message, DEAD, "emails", NAMES))

    assert history(letter)[-1].error == "ConnectionError: gateway is away"
    assert len(history(letter)) <= 20


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5)
)
def test_any_json_is_a_history_or_none(value: Any) -> None:
    for written in (value, [value], [{"attempt": value, "at": value, "error": value, "replay": value}]):
        message = MESSAGE.copy(marks={"history": json.dumps(written)})

        for entry in history(message):
            assert entry.at >= 0
            assert entry.attempt >= 0
            assert isinstance(entry.error, str)


# ---- copies fit


@pytest.mark.parametrize(
    "headers",
    [
        {f"header-{n}": "x" * 1000 for n in range(500)},
        {f"{n:05}": True for n in range(10_000)},
        {"blob": "x" * 1_000_000},
        {
            PREFIX + "error": "x" * 1_000_000,
            PREFIX + "traceback": "y" * 1_000_000,
            PREFIX + "key": "k" * 10_000,
        },
        {"x-death": [{"queue": "q", "reason": "expired"}] * 5_000},
    ],
    ids=["many large", "very many", "one blob", "ours, foreign", "the broker's"],
)
def test_headers_of_any_copy_are_below_what_kills_a_connection(headers: dict[str, Any]) -> None:
    message = decode({"headers": headers}, b"", routing_key="emails.welcome")
    worst = Failure(kind="E" * 10_000, text="t" * 1_000_000, traceback="b" * 1_000_000)

    for _ in range(25):
        message = arrived(
            next_attempt(message, Retried(delay=1, reason="failed", failure=worst), "emails", NAMES)
        )
    letter = dead_letter(message, DeadLettered(reason="r" * 1000, failure=worst), "emails", NAMES).message

    assert len(encode.field_table(letter.properties()["headers"])) <= 64 * 1024
    assert len(encode.field_table(message.properties()["headers"])) <= 64 * 1024
