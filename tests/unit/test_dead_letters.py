"""Dead letters as values: read from whatever lies there, chosen, and turned into their replay."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerjobs import topology
from brokerjobs.amqp.settlement import HISTORY_ENTRIES, dead_letter, history, next_attempt
from brokerjobs.amqp.wire import to_pamqp
from brokerjobs.dead_letters import DeadLetter, Entry, Filter
from brokerjobs.dead_letters.letter import read, replay_of
from brokerjobs.dead_letters.moving import Pace, Replay
from brokerjobs.errors import BrokerUnreachable, MessageTooLarge, PublishUnknown, Unroutable
from brokerjobs.failure import Failure
from brokerjobs.message import Message, decode
from brokerjobs.outcome import DeadLettered, Retried
from brokerjobs.topology import Names
from brokerjobs.transport import Publication

NAMES = Names()
NOW = 1_700_000_000.5
DIED = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def job(**changes: Any) -> Message:
    values = {
        "job": "emails.welcome",
        "routing_key": "emails.welcome",
        "body": b'{"user_id": 7}',
        "id": "id-1",
    }
    return Message(**{**values, **changes})


def died(message: Message, reason: str = "exhausted", failure: Failure | None = None) -> DeadLetter:
    """As a worker would have put it into the dead letter queue, read back."""
    failure = failure or Failure(kind="ValueError", text="no such user", traceback="Traceback: …")
    copy = dead_letter(message, DeadLettered(reason=reason, failure=failure), "emails", NAMES).message
    return read(copy.properties(), copy.body, routing_key="emails", queue="emails")


def by_broker(reason: str = "delivery_limit", key: str = "emails.welcome", **properties: Any) -> DeadLetter:
    """As RabbitMQ itself would have dead-lettered it: only x-death tells."""
    death = {"queue": "emails", "reason": reason, "count": 1, "time": DIED, "routing-keys": [key]}
    return read({"headers": {"x-death": [death]}, **properties}, b"{}", routing_key="emails", queue="emails")


def test_letter_of_a_worker_tells_what_befell_the_job() -> None:
    letter = died(job(attempt=3))
    assert letter.id == "id-1"
    assert letter.message.job == "emails.welcome"
    assert (letter.reason, letter.error_kind, letter.error) == ("exhausted", "ValueError", "no such user")
    assert letter.summary == "ValueError: no such user"
    assert letter.traceback == "Traceback: …"
    assert letter.attempts == 3
    assert [(entry.attempt, entry.error) for entry in letter.history] == [(3, "ValueError: no such user")]
    assert letter.died_at == pytest.approx(letter.message.died_at / 1000)
    assert ":" in letter.worker


def test_letter_of_the_broker_is_told_by_x_death() -> None:
    letter = by_broker(message_id="id-1", type="emails.welcome")
    assert letter.reason == "delivery_limit"
    assert "delivery limit" in letter.error
    assert letter.died_at == DIED.timestamp()
    assert letter.message.routing_key == "emails.welcome"


def test_letter_of_the_broker_without_a_type_keeps_the_job_of_its_first_routing_key() -> None:
    assert by_broker().message.job == "emails.welcome"


def test_scheduled_letter_of_the_broker_keeps_the_job_behind_the_delay_levels() -> None:
    _, key = topology.route(NAMES, "emails.welcome", 60.0)
    assert by_broker(key=key).message.job == "emails.welcome"


def test_letter_by_hand_with_nothing_set_can_be_named_and_replayed() -> None:
    letter = read({}, b"hello", routing_key="emails.dead", queue="emails")
    again = read({}, b"hello", routing_key="emails.dead", queue="emails")
    assert letter.id == again.id
    assert letter.id.startswith("no-id-")
    assert letter.identity is None, "equal content does not make two messages copies of one"
    assert (letter.reason, letter.error, letter.died_at) == ("", "", None)
    message = replay_of(letter, NAMES, now=NOW).message
    assert message.body == b"hello"
    assert not message.id.startswith("no-id-")


def test_id_that_nobody_could_type_is_replaced_by_one_of_the_content() -> None:
    for strange in "a\x1b[31mb", "two words", "":
        letter = read({"message_id": strange}, b"", routing_key="emails", queue="emails")
        assert letter.id.startswith("no-id-")


def test_copies_have_one_identity_and_other_jobs_of_that_id_another() -> None:
    first = died(job())
    assert first.identity == died(job(attempt=2)).identity
    assert first.identity != died(job(body=b"{}")).identity
    assert first.identity != died(job(job="emails.receipt")).identity


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
known_headers = st.sampled_from(
    [
        "x-death",
        "brokerjobs-history",
        "brokerjobs-attempt",
        "brokerjobs-died-at",
        "brokerjobs-reason",
        "brokerjobs-key",
    ]
)
properties = st.fixed_dictionaries(
    {},
    optional={
        "headers": st.dictionaries(known_headers | st.text(max_size=8), anything, max_size=4) | anything,
        "message_id": anything,
        "type": anything,
        "priority": anything,
        "timestamp": anything,
    },
)


@given(properties, st.binary(max_size=20), st.text(max_size=20))
def test_reading_never_fails_and_the_id_stays_the_same(found: dict[str, Any], body: bytes, key: str) -> None:
    letter = read(found, body, routing_key=key, queue="emails")
    assert letter.id == read(found, body, routing_key=key, queue="emails").id
    assert letter.id
    assert letter.id.isprintable()
    replay_of(letter, NAMES, now=NOW)


# -- replay


def test_replay_is_a_first_attempt_of_the_next_generation() -> None:
    dead = died(
        job(
            attempt=5,
            generation=1,
            first_at=1,
            due=2,
            not_before=3,
            not_after=4,
            unknown=2,
            hop=6,
            priority=7,
        )
    )
    publication = replay_of(dead, NAMES, now=NOW)
    message = publication.message
    assert (publication.exchange, publication.routing_key) == topology.route_to_queue(NAMES, "emails", 0)
    assert (message.id, message.job, message.routing_key) == ("id-1", "emails.welcome", "emails.welcome")
    assert (message.attempt, message.generation, message.priority) == (1, 2, 7)
    assert message.hop > dead.message.hop
    assert (message.first_at, message.not_before, message.not_after, message.unknown, message.died_at) == (
        0, 0, 0, 0, 0,
    )  # fmt: skip
    assert message.due == NOW * 1000, "the wait is counted from the replay"


def test_replay_drops_the_error_and_keeps_the_history() -> None:
    message = replay_of(died(job(attempt=2, marks={"user-id": "shop"})), NAMES, now=NOW).message
    assert set(message.marks) == {"key", "user-id", "history"}
    kept = history(message)
    assert [(entry.attempt, entry.replay) for entry in kept] == [(2, 0), (0, 1)]
    assert kept[-1].at == NOW


def test_replay_goes_where_the_queue_says_and_not_where_a_header_says() -> None:
    letter = died(job(marks={"queue": "payments"}))
    publication = replay_of(letter, NAMES, now=NOW)
    assert (publication.exchange, publication.routing_key) == topology.route_to_queue(NAMES, "emails", 0)


def test_replay_may_wait() -> None:
    publication = replay_of(died(job()), NAMES, now=NOW, delay=60.0)
    assert (publication.exchange, publication.routing_key) == topology.route_to_queue(NAMES, "emails", 60.0)
    assert publication.message.due == (NOW + 60) * 1000


def test_replay_of_what_the_broker_dead_lettered_drops_its_headers() -> None:
    publication = replay_of(by_broker(message_id="id-1"), NAMES, now=NOW)
    headers = publication.message.properties()["headers"]
    assert not [name for name in headers if name.startswith("x-")]


# -- what happens to each on the way


class Lying:
    """A delivery that lies in the dead letter queue."""

    def __init__(self) -> None:
        self.is_acked = False

    async def ack(self) -> None:
        self.is_acked = True


class Confirming:
    """A publisher that confirms, or refuses."""

    def __init__(self) -> None:
        self.published: list[Publication] = []
        self.refuses: Exception | None = None

    async def publish(self, publication: Publication, *, timeout: float) -> None:
        if self.refuses:
            raise self.refuses
        self.published.append(publication)


def replaying(publisher: Confirming, **changes: Any) -> Replay:
    stop = asyncio.Event()
    options: dict[str, Any] = {"limit": None, "delay": 0.0, "dry_run": False, **changes}
    return Replay(names=NAMES, publisher=publisher, timeout=1.0, pace=Pace(None, stop), stop=stop, **options)


async def take(replay: Replay, letter: DeadLetter) -> tuple[str, bool]:
    delivery = Lying()
    effect = await replay.take(letter, delivery)  # type: ignore[arg-type]
    return effect, delivery.is_acked


async def test_copy_of_what_was_replayed_is_removed_and_what_died_of_its_replay_is_not() -> None:
    publisher = Confirming()
    replay = replaying(publisher)
    assert await take(replay, died(job(generation=1))) == ("done", True)
    assert await take(replay, died(job(generation=1, attempt=4))) == ("double", True)
    assert await take(replay, died(job(generation=0))) == ("double", True)
    assert await take(replay, died(job(generation=2))) == ("kept", False)
    assert len(publisher.published) == 1


async def test_copies_beyond_the_limit_are_removed_and_others_are_not() -> None:
    replay = replaying(Confirming(), limit=1)
    assert await take(replay, died(job())) == ("done", True)
    assert await take(replay, died(job(id="other"))) == ("kept", False)
    assert await take(replay, died(job())) == ("double", True)


async def test_nothing_is_removed_that_was_not_confirmed() -> None:
    publisher = Confirming()
    replay = replaying(publisher)
    publisher.refuses = MessageTooLarge("too large")
    assert await take(replay, died(job())) == ("refused", False)
    assert replay.problem == "id-1: too large"
    for error in PublishUnknown("no confirm"), BrokerUnreachable("away"), Unroutable("no topology"):
        publisher.refuses = error
        delivery = Lying()
        with pytest.raises(type(error)):
            await replay.take(died(job()), delivery)  # type: ignore[arg-type]
        assert not delivery.is_acked
    publisher.refuses = None
    assert await take(replay, died(job())) == ("done", True)


async def test_messages_without_an_id_are_never_taken_for_copies() -> None:
    replay = replaying(Confirming())
    letter = read({}, b"hello", routing_key="emails", queue="emails")
    assert await take(replay, letter) == ("done", True)
    assert await take(replay, letter) == ("done", True)


# -- filter


@pytest.mark.parametrize(
    ("chosen", "matches"),
    [
        (Filter(), True),
        (Filter(ids=("id-1",)), True),
        (Filter(ids=("other", "id-1")), True),
        (Filter(ids=("id", "")), False),
        (Filter(job="emails.*"), True),
        (Filter(job="*.receipt"), False),
        (Filter(error="NO SUCH"), True),
        (Filter(error="valueerror: no"), True),
        (Filter(error="timeout"), False),
        (Filter(reason="exhausted"), True),
        (Filter(reason="exhaust"), False),
        (Filter(since=NOW), True),
        (Filter(since=NOW + 1), False),
        (Filter(until=NOW), True),
        (Filter(until=NOW - 1), False),
        (Filter(job="emails.*", reason="failed"), False),
    ],
)
def test_filter_matches_where_all_that_is_asked_for_fits(chosen: Filter, matches: bool) -> None:
    assert chosen.matches(replace(died(job()), died_at=NOW)) is matches


def test_filter_by_time_leaves_out_what_died_at_an_unknown_time() -> None:
    letter = replace(died(job()), died_at=None)
    assert Filter().matches(letter)
    assert not Filter(since=0.0).matches(letter)
    assert not Filter(until=NOW).matches(letter)


# -- history, which anybody can write


@pytest.mark.parametrize(
    "forged",
    [
        "",
        "no JSON",
        "[" * 60_000,
        "{}",
        "[1, null]",
        '[{"at": "x", "attempt": -1, "error": []}]',
        "[" + "9" * 5000 + "]",
    ],
)
def test_forged_history_stops_neither_retry_nor_dead_letter_nor_replay(forged: str) -> None:
    message = job(marks={"history": forged})
    failure = Failure(text="no")
    for publication in (
        next_attempt(message, Retried(delay=1.0, reason="failed", failure=failure), "emails", NAMES),
        dead_letter(message, DeadLettered(reason="failed", failure=failure), "emails", NAMES),
        replay_of(died(message), NAMES, now=NOW),
    ):
        assert history(publication.message)[-1].at


@pytest.mark.parametrize("text", ["\ud800", "é" * 100_000])
def test_forged_history_is_written_again_in_bounded_clean_text(text: str) -> None:
    message = job(marks={"history": json.dumps([{"attempt": 1, "at": 1, "error": text}] * 100)})
    written = dead_letter(message, DeadLettered(reason="failed", failure=Failure()), "emails", NAMES).message
    assert len(history(written)) == HISTORY_ENTRIES
    assert len(written.marks["history"].encode()) < 16 * 1024
    assert to_pamqp(written).marshal()


def test_history_survives_the_wire() -> None:
    entries = [Entry(at=1.001, attempt=1, error="é"), Entry(at=2.0, replay=1)]
    message = replay_of(replace(died(job()), history=tuple(entries)), NAMES, now=NOW).message
    read_back = decode(message.properties(), b"", routing_key="")
    assert history(read_back) == [*entries, Entry(at=NOW, replay=1)]
