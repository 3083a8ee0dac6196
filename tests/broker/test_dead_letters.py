"""Dead letters are looked at without loss, and replayed so that no crash loses one and no copy runs twice."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Sequence

import pytest
from pydantic import SecretStr

from brokerjobs import Consumer, Retry, current_job, topology
from brokerjobs.amqp import declare
from brokerjobs.amqp.connection import Connection
from brokerjobs.amqp.publisher import Publisher
from brokerjobs.amqp.settlement import dead_letter
from brokerjobs.client import Client
from brokerjobs.dead_letters import DeadLetters, Filter, Progress, desk
from brokerjobs.errors import (
    AccessRefused,
    BrokerUnreachable,
    ConfigurationError,
    DelayTooLong,
    MessageTooLarge,
    QueueInUse,
    UnknownDeadLetter,
    UnknownQueue,
)
from brokerjobs.failure import Failure
from brokerjobs.message import Message
from brokerjobs.node.private import PrivateNode
from brokerjobs.outcome import DeadLettered
from brokerjobs.settings import Settings
from brokerjobs.topology import Names
from brokerjobs.transport import Publication
from tests import amqp
from tests.conftest import StartWorker, management
from tests.management import user
from tests.waiting import eventually, eventually_async

NAMES = Names()


@pytest.fixture
async def dead(settings: Settings) -> DeadLetters:
    """The queue `emails` without a worker."""
    await declare_queue(settings)
    return DeadLetters(settings, "emails")


@pytest.fixture
async def publisher(settings: Settings) -> AsyncIterator[Publisher]:
    publisher = Publisher(settings)
    yield publisher
    await publisher.close()


async def declare_queue(settings: Settings, **options: object) -> None:
    connection = await Connection.open(settings, "test")
    try:
        parts = topology.for_queue(NAMES, "emails", connection.capabilities, **options)  # type: ignore[arg-type]
        await declare.apply(connection, topology.shared(NAMES) + parts, settings)
    finally:
        await connection.close()


def job(id: str = "", name: str = "emails.welcome", **changes: object) -> Message:
    return Message(job=name, routing_key=name, body=b'{"user_id": 7}', id=id or str(uuid.uuid4()), **changes)  # type: ignore[arg-type]


async def bury(
    publisher: Publisher, messages: Sequence[Message], kind: str = "ValueError", text: str = "no such user"
) -> None:
    """Put them into the dead letter queue as a worker does."""
    outcome = DeadLettered(reason="failed", failure=Failure(kind=kind, text=text, traceback="…"))
    for message in messages:
        await publisher.publish(dead_letter(message, outcome, "emails", NAMES), timeout=15)


def ids(url: str, queue: str) -> list[str]:
    return [found.properties.message_id for found in amqp.peek(url, queue)]


# -- look


async def test_list_tells_how_a_job_died_and_leaves_it(
    settings: Settings, client: Client, start_worker: StartWorker, url: str
) -> None:
    consumer = Consumer("emails", retry=Retry(delays=[0.125]))

    @consumer.job()
    def welcome(user_id: int) -> None:
        raise ValueError(f"no user {user_id}\nlook elsewhere")

    await start_worker(consumer)
    handle = await welcome.asend(user_id=7)
    await eventually_async(lambda: amqp.ready(url, "emails.dead") == 1)

    desk = DeadLetters(settings, "emails")
    for _ in range(2):
        page = await desk.page()
        (letter,) = page.letters
        assert (page.present, page.more) == (1, False)
        assert (letter.id, letter.message.job, letter.queue) == (handle.id, "emails.welcome", "emails")
        assert (letter.reason, letter.summary) == ("exhausted", "ValueError: no user 7")
        assert "raise ValueError" in letter.traceback
        assert letter.attempts == 2
        assert [entry.attempt for entry in letter.history] == [1, 2]
        assert abs((letter.died_at or 0) - time.time()) < 60
    await eventually_async(lambda: amqp.ready(url, "emails.dead") == 1)


async def test_list_stops_at_its_limit_and_says_that_there_are_more(
    dead: DeadLetters, publisher: Publisher, url: str
) -> None:
    messages = [job(f"id-{number}") for number in range(12)]
    await bury(publisher, messages)
    page = await dead.page(limit=5)
    assert [letter.id for letter in page.letters] == [f"id-{number}" for number in range(5)]
    assert (page.more, page.present) == (True, 12)
    assert not (await dead.page(limit=12)).more
    await eventually_async(lambda: amqp.ready(url, "emails.dead") == 12)


async def test_list_finds_what_matches_beyond_one_window_and_counts_copies_once(
    dead: DeadLetters, publisher: Publisher
) -> None:
    await bury(publisher, [job() for _ in range(120)])
    await bury(publisher, [job("it"), job("it")], kind="TimeoutError", text="too late")
    page = await dead.page(Filter(error="timeout"))
    assert [(letter.id, letter.copies) for letter in page.letters] == [("it", 2)]
    assert not page.more


async def test_list_reads_what_the_broker_itself_dead_lettered(
    settings: Settings, node: PrivateNode, vhost: str, url: str
) -> None:
    await declare_queue(settings, queue_type="quorum")
    policy = {"pattern": "^emails$", "definition": {"delivery-limit": 1}, "apply-to": "queues"}
    management(node, "PUT", f"/api/policies/{vhost}/limit", json.dumps(policy).encode())
    amqp.publish(url, "emails.welcome", b'{"user_id": 7}', message_id="it")

    def crash_again() -> bool:
        with amqp.channel(url) as channel:
            method, _, _ = channel.basic_get("emails")
            if method is not None:
                channel.basic_reject(method.delivery_tag, requeue=True)
        return amqp.ready(url, "emails.dead") == 1

    await eventually_async(crash_again)
    dead = DeadLetters(settings, "emails")
    letter = await dead.get("it")
    assert letter.reason == "delivery_limit"
    assert letter.message.job == "emails.welcome"
    assert letter.died_at is not None

    assert (await dead.replay()).done == 1
    (again,) = amqp.peek(url, "emails")
    assert (again.properties.message_id, again.properties.type) == ("it", "emails.welcome")
    assert not [name for name in again.headers if name.startswith("x-") and "count" not in name]


async def test_letter_without_any_property_is_listed_found_and_replayed(dead: DeadLetters, url: str) -> None:
    amqp.publish(url, "emails.dead", b"hello", exchange="")
    (letter,) = (await dead.page()).letters
    assert (letter.message.body, letter.published_at, letter.died_at) == (b"hello", None, None)
    assert (await dead.get(letter.id)).id == letter.id
    assert (await dead.replay(Filter(ids=(letter.id,)))).done == 1
    assert [found.body for found in amqp.peek(url, "emails")] == [b"hello"]
    assert amqp.ready(url, "emails.dead") == 0


async def test_groups_count_by_reason_and_error(dead: DeadLetters, publisher: Publisher) -> None:
    await bury(publisher, [job(), job(name="emails.receipt")], text="no such user\nmore")
    await bury(publisher, [job()], kind="TimeoutError", text="too late")
    groups = await dead.groups()
    assert [(group.count, group.reason, group.error) for group in groups] == [
        (2, "failed", "ValueError: no such user"),
        (1, "failed", "TimeoutError: too late"),
    ]
    assert groups[0].jobs == ("emails.welcome", "emails.receipt")
    assert (groups[0].oldest or 0) <= (groups[0].newest or 0)


async def test_beginning_of_an_id_is_enough_where_only_one_begins_so(
    dead: DeadLetters, publisher: Publisher
) -> None:
    await bury(publisher, [job("abc"), job("abcd"), job("xyz")])
    assert await dead.resolve(["x", "abc"]) == ("xyz", "abc")
    with pytest.raises(UnknownDeadLetter, match=r"several ids in 'emails.dead' begin with 'ab': abc, abcd"):
        await dead.get("ab")
    with pytest.raises(UnknownDeadLetter, match=r"no dead letter in 'emails.dead' has the id 'q'"):
        await dead.resolve(["x", "q"])


# -- replay


async def test_replayed_job_runs_as_a_first_attempt_under_its_id(
    settings: Settings, client: Client, start_worker: StartWorker, url: str
) -> None:
    consumer, runs, is_mended = Consumer("emails", retry=Retry(delays=[0.125])), [], False

    @consumer.job()
    async def welcome(user_id: int) -> None:
        if not is_mended:
            raise ConnectionError("mail server is away")
        runs.append((current_job().id, current_job().attempt, user_id))

    await start_worker(consumer)
    handle = await welcome.asend(user_id=7)
    await eventually_async(lambda: amqp.ready(url, "emails.dead") == 1)
    is_mended = True
    progress = await DeadLetters(settings, "emails").replay()
    assert progress == Progress(present=1, seen=1, done=1)
    await eventually_async(lambda: bool(runs))
    assert runs == [(handle.id, 1, 7)]
    assert amqp.ready(url, "emails.dead") == 0


async def test_what_dies_again_during_the_replay_stays_dead(
    settings: Settings, dead: DeadLetters, start_worker: StartWorker, publisher: Publisher, url: str
) -> None:
    consumer, runs = Consumer("emails", retry=Retry(max_attempts=1)), []

    @consumer.job()
    async def welcome(user_id: int) -> None:
        runs.append(current_job().id)
        raise ValueError("still broken")

    await start_worker(consumer)
    buried = [job() for _ in range(30)]
    await bury(publisher, buried)
    progress = await dead.replay(rate=100.0)
    assert progress.done + progress.doubles + (30 - progress.seen) <= 30
    assert progress.doubles == 0
    await eventually_async(lambda: amqp.ready(url, "emails.dead") == 30)
    assert sorted(set(ids(url, "emails.dead"))) == sorted(message.id for message in buried)
    assert len(runs) == len(set(runs)) == progress.done


async def test_replay_goes_to_the_queue_it_died_in_and_to_no_other(
    settings: Settings, dead: DeadLetters, publisher: Publisher, url: str
) -> None:
    with amqp.channel(url) as channel:
        channel.queue_declare("audit")
        channel.queue_bind("audit", "jobs", "#")
        channel.queue_bind("audit", "jobs.v1.due", "#.emails.welcome")
    await bury(publisher, [job("it", priority=7)])
    await dead.replay()
    (again,) = amqp.peek(url, "emails")
    assert again.properties.priority == 7
    assert again.headers["brokerjobs-generation"] == 1
    assert amqp.ready(url, "audit") == 0


async def test_copies_of_one_dead_letter_go_once(dead: DeadLetters, publisher: Publisher, url: str) -> None:
    await bury(publisher, [job("a"), job("b"), job("a"), job("a", attempt=2)])
    await bury(publisher, [job("a", name="emails.receipt")])  # another job that somebody gave the same id
    progress = await dead.replay()
    assert (progress.done, progress.doubles) == (3, 2)
    assert sorted(ids(url, "emails")) == ["a", "a", "b"]
    assert amqp.ready(url, "emails.dead") == 0


async def test_replay_takes_what_matches_and_not_more_than_its_limit(
    dead: DeadLetters, publisher: Publisher, url: str
) -> None:
    await bury(publisher, [job(f"a{number}") for number in range(5)])
    await bury(publisher, [job(f"b{number}", name="emails.receipt") for number in range(5)])
    progress = await dead.replay(Filter(job="*.receipt"), limit=3)
    assert (progress.present, progress.seen, progress.done) == (10, 10, 3)
    assert ids(url, "emails") == ["b0", "b1", "b2"]
    await eventually_async(lambda: amqp.ready(url, "emails.dead") == 7)


async def test_dry_run_counts_and_changes_nothing(dead: DeadLetters, publisher: Publisher, url: str) -> None:
    await bury(publisher, [job("a"), job("a"), job("b")])
    progress = await dead.replay(dry_run=True)
    assert (progress.done, progress.doubles) == (2, 1)
    assert (await dead.drop(dry_run=True)).done == 3
    await eventually_async(lambda: amqp.ready(url, "emails.dead") == 3)
    assert amqp.ready(url, "emails") == 0


async def test_replay_is_no_faster_than_its_rate(dead: DeadLetters, publisher: Publisher) -> None:
    await bury(publisher, [job() for _ in range(6)])
    began = time.monotonic()
    await dead.replay(rate=10.0)
    assert time.monotonic() - began >= 0.5


async def test_replay_may_wait_in_the_delay_levels(dead: DeadLetters, publisher: Publisher, url: str) -> None:
    await bury(publisher, [job("it")])
    began = time.monotonic()
    await dead.replay(delay=1.0)
    assert amqp.ready(url, "emails") == 0
    await eventually_async(lambda: amqp.ready(url, "emails") == 1)
    assert time.monotonic() - began >= 1.0
    await bury(publisher, [job("it")])
    with pytest.raises(DelayTooLong):
        await dead.replay(delay=1e9)
    assert amqp.ready(url, "emails.dead") == 1


async def test_second_replayer_is_refused_and_a_told_one_stops_without_loss(
    dead: DeadLetters, publisher: Publisher, url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "PATIENCE", 0.3)
    await bury(publisher, [job() for _ in range(5)])
    stop, stepped = asyncio.Event(), asyncio.Event()
    first = asyncio.create_task(
        dead.replay(rate=0.01, stop=stop, on_step=lambda progress, letter: stepped.set())
    )
    await stepped.wait()
    second = DeadLetters(settings, "emails")
    for refused in second.replay(), second.drop(), second.page():
        with pytest.raises(QueueInUse, match="somebody else"):
            await refused
    stop.set()
    progress = await asyncio.wait_for(first, 10)
    assert progress == Progress(present=5, seen=1, done=1, stopped=True)
    await eventually_async(lambda: amqp.ready(url, "emails.dead") == 4)
    assert amqp.ready(url, "emails") == 1
    assert (await second.replay()).done == 4


CRASH = """
import asyncio, os, sys
from brokerjobs import settings
from brokerjobs.amqp.delivery import Delivery
from brokerjobs.dead_letters import DeadLetters

async def crash(delivery):
    os._exit(9)

Delivery.ack = crash
asyncio.run(DeadLetters(settings.load(), "emails").replay())
"""


async def test_crash_between_confirm_and_ack_repeats_one_job_and_loses_none(
    dead: DeadLetters, publisher: Publisher, url: str, environment: dict[str, str]
) -> None:
    await bury(publisher, [job(f"id-{number}") for number in range(5)])
    crashed = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", CRASH], env=environment, timeout=60, check=False
    )
    assert crashed.returncode == 9
    eventually(lambda: amqp.ready(url, "emails.dead") == 5, what="the broker gives back what was not acked")
    assert ids(url, "emails") == ["id-0"]
    assert (await dead.replay()).done == 5
    assert sorted(ids(url, "emails")) == ["id-0", "id-0", "id-1", "id-2", "id-3", "id-4"]
    assert amqp.ready(url, "emails.dead") == 0


async def test_double_left_by_a_crash_goes_once_more_and_not_twice(
    dead: DeadLetters, publisher: Publisher, url: str
) -> None:
    """The replay of a crashed replayer has died again: two generations of one job lie there."""
    await bury(publisher, [job("it", generation=1), job("it")])
    progress = await dead.replay()
    assert (progress.done, progress.doubles) == (1, 1)
    (again,) = amqp.peek(url, "emails")
    assert again.headers["brokerjobs-generation"] == 2


async def test_message_that_the_broker_refuses_stays_and_does_not_stop_the_others(
    dead: DeadLetters, publisher: Publisher, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bury(publisher, [job("a"), job("b"), job("c")])
    publish = Publisher.publish

    async def refuse_b(self: Publisher, publication: Publication, *, timeout: float) -> None:
        if publication.message.id == "b":
            raise MessageTooLarge("too large")
        await publish(self, publication, timeout=timeout)

    monkeypatch.setattr(Publisher, "publish", refuse_b)
    progress = await dead.replay()
    assert (progress.done, progress.refused, progress.problem) == (2, 1, "b: too large")
    await eventually_async(lambda: amqp.ready(url, "emails.dead") == 1)
    assert ids(url, "emails") == ["a", "c"]


# -- drop


async def test_drop_removes_what_matches_with_its_copies(
    dead: DeadLetters, publisher: Publisher, url: str
) -> None:
    await bury(publisher, [job("a"), job("b"), job("a"), job("c")])
    progress = await dead.drop(Filter(ids=("a",)))
    assert (progress.present, progress.done) == (4, 2)
    await eventually_async(lambda: amqp.ready(url, "emails.dead") == 2)
    assert (await dead.drop(limit=1)).done == 1
    assert (await dead.drop()).done == 1
    assert amqp.ready(url, "emails.dead") == 0


# -- what cannot be


async def test_missing_dead_letter_queue_is_said(settings: Settings) -> None:
    nobody = DeadLetters(settings, "nobody")
    with pytest.raises(UnknownQueue, match=r"no queue 'nobody.dead'"):
        await nobody.page()
    with pytest.raises(UnknownQueue, match="no queue 'nobody' to replay to"):
        await nobody.replay()
    with pytest.raises(ConfigurationError, match="one word"):
        DeadLetters(settings, "emails.dead")


async def test_nothing_is_replayed_while_the_work_queue_is_missing(
    dead: DeadLetters, publisher: Publisher, url: str
) -> None:
    await bury(publisher, [job("a")])
    with amqp.channel(url) as channel:
        channel.queue_delete("emails")
    with pytest.raises(UnknownQueue, match="no queue 'emails' to replay to"):
        await dead.replay()
    assert amqp.ready(url, "emails.dead") == 1
    assert amqp.ready(url, "jobs.unrouted") == 0


async def test_lost_connection_says_that_the_rest_is_still_there(
    dead: DeadLetters, publisher: Publisher, node: PrivateNode, vhost: str, url: str
) -> None:
    buried = [job() for _ in range(5)]
    await bury(publisher, buried)

    def cut(progress: Progress, letter: object) -> None:
        if progress.done == 2:
            node.ctl("close_all_connections", "--vhost", vhost, "a test")

    with pytest.raises(BrokerUnreachable, match=r"still in 'emails.dead'"):
        await dead.replay(rate=5.0, on_step=cut)
    # The ack of the second may have been lost with the connection.
    await eventually_async(lambda: amqp.ready(url, "emails.dead") >= 3)
    await eventually_async(
        lambda: {*ids(url, "emails"), *ids(url, "emails.dead")} == {message.id for message in buried}
    )


async def test_user_who_may_not_is_told_what_is_refused(
    dead: DeadLetters, settings: Settings, node: PrivateNode, vhost: str
) -> None:
    with user(node, vhost, "reader", read=".*") as url:
        reader = DeadLetters(settings.model_copy(update={"url": SecretStr(url)}), "emails")
        with pytest.raises(AccessRefused, match=r"user 'reader': .*'emails.dead.reader'"):
            await reader.page()
    with user(node, vhost, "reader", read=".*", configure=r"\.dead\.reader$") as url:
        reader = DeadLetters(settings.model_copy(update={"url": SecretStr(url)}), "emails")
        assert (await reader.page()).letters == ()


async def test_unreachable_broker_is_said(settings: Settings) -> None:
    away = settings.model_copy(update={"url": SecretStr("amqp://guest:secret@127.0.0.1:9/")})
    with pytest.raises(BrokerUnreachable, match=r"127.0.0.1:9") as caught:
        await DeadLetters(away, "emails").page()
    assert "secret" not in str(caught.value)
