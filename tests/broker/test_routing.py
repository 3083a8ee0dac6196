"""Which queue gets what: topic patterns, several queues at once, and nothing lost that no queue wants yet."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from brokerjobs import Client, Consumer, Message, Retry, current_job
from brokerjobs.node.private import PrivateNode
from tests import amqp
from tests.conftest import StartWorker
from tests.management import delete_queue
from tests.waiting import eventually_async

Seen = list[tuple[str, str]]


def note(seen: Seen, who: str) -> None:
    seen.append((who, current_job().message.routing_key))


# -- patterns


async def test_patterns_decide_which_queues_get_a_message(client: Client, start_worker: StartWorker) -> None:
    seen: Seen = []
    audit = Consumer("audit", bind=["*.created", "orders.#"])
    mirror = Consumer("mirror", bind=["#"])

    @audit.job(match="#")
    async def record() -> None:
        note(seen, "audit")

    @mirror.job(match="#")
    async def copy() -> None:
        note(seen, "mirror")

    await start_worker(audit, mirror)
    for key in "users.created", "users.deleted", "orders.paid", "orders.paid.late", "a.b.created":
        await client.asend(key, check_queue=False)

    await eventually_async(lambda: len(seen) == 8)
    assert sorted(seen) == [
        ("audit", "orders.paid"),
        ("audit", "orders.paid.late"),
        ("audit", "users.created"),
        ("mirror", "a.b.created"),
        ("mirror", "orders.paid"),
        ("mirror", "orders.paid.late"),
        ("mirror", "users.created"),
        ("mirror", "users.deleted"),
    ]


async def test_two_patterns_that_match_bring_one_copy(client: Client, start_worker: StartWorker) -> None:
    seen: Seen = []
    audit = Consumer("audit", bind=["*.created", "orders.#", "orders.created"])

    @audit.job(match="#")
    async def record() -> None:
        note(seen, "audit")

    await start_worker(audit)
    await client.asend("orders.created", check_queue=False)
    await client.asend("orders.last", check_queue=False)

    await eventually_async(lambda: len(seen) >= 2)
    assert sorted(seen) == [("audit", "orders.created"), ("audit", "orders.last")]


async def test_one_message_runs_once_in_each_of_its_queues(client: Client, start_worker: StartWorker) -> None:
    ran: list[tuple[str, str, int]] = []
    orders, stock, mails = (
        Consumer("orders"),
        Consumer("stock", bind=["orders.*"]),
        Consumer("mails", bind=["#"]),
    )

    @orders.job()
    async def created(order: int) -> None:
        ran.append(("orders", current_job().id, order))

    @stock.job(match="orders.created")
    async def reserve(order: int) -> None:
        ran.append(("stock", current_job().id, order))

    @mails.job(match="*.created")
    async def confirm(order: int) -> None:
        ran.append(("mails", current_job().id, order))

    await start_worker(orders, stock, mails)
    handle = await created.asend(7)

    await eventually_async(lambda: len(ran) == 3)
    assert sorted(ran) == [(queue, handle.id, 7) for queue in ("mails", "orders", "stock")]


async def test_a_delayed_message_reaches_all_its_queues(client: Client, start_worker: StartWorker) -> None:
    seen: Seen = []
    orders, audit = Consumer("orders"), Consumer("audit", bind=["orders.*"])

    @orders.job()
    async def created() -> None:
        note(seen, "orders")

    @audit.job(match="orders.*")
    async def record() -> None:
        note(seen, "audit")

    await start_worker(orders, audit)
    await created.options(delay=0.375).asend()

    await eventually_async(lambda: len(seen) == 2)
    assert sorted(seen) == [("audit", "orders.created"), ("orders", "orders.created")]


async def test_the_name_wins_over_a_pattern_and_the_first_pattern_over_the_next(
    client: Client, start_worker: StartWorker
) -> None:
    seen: Seen = []
    orders = Consumer("orders")

    @orders.job(match="orders.#")
    async def anything() -> None:
        note(seen, "anything")

    @orders.job(match="orders.*")
    async def one_word() -> None:
        note(seen, "one word")

    @orders.job()
    async def created() -> None:
        note(seen, "created")

    await start_worker(orders)
    for key in "orders.created", "orders.paid", "orders.one_word":
        await client.asend(key)

    await eventually_async(lambda: len(seen) == 3)
    assert sorted(seen) == [
        ("anything", "orders.paid"),
        ("created", "orders.created"),
        ("one word", "orders.one_word"),
    ]


# -- names


async def test_names_aliases_and_the_type_of_a_message(
    client: Client, start_worker: StartWorker, url: str
) -> None:
    seen: Seen = []
    emails = Consumer("emails", bind=["mails.*"])

    @emails.job(name="greet-user", aliases=["welcome", "mails.hello"])
    async def function_name_does_not_matter(user_id: int) -> None:
        note(seen, str(user_id))

    await start_worker(emails)
    assert function_name_does_not_matter.name == "emails.greet-user"
    await function_name_does_not_matter.asend(1)
    await client.asend("emails.greet-user", {"user_id": 2})
    await client.asend("emails.welcome", {"user_id": 3})
    await client.asend("mails.hello", {"user_id": 4}, check_queue=False)
    amqp.publish(url, "emails.whatever", b'{"user_id": 5}', type="emails.greet-user")
    amqp.publish(url, "emails.greet-user", b'{"user_id": 6}', type="somebody's own word")

    await eventually_async(lambda: len(seen) == 6)
    assert sorted(seen) == [
        ("1", "emails.greet-user"),
        ("2", "emails.greet-user"),
        ("3", "emails.welcome"),
        ("4", "mails.hello"),
        ("5", "emails.whatever"),
        ("6", "emails.greet-user"),
    ]


async def test_a_raw_job_gets_the_bytes_whatever_they_are(
    client: Client, start_worker: StartWorker, url: str
) -> None:
    bodies: list[bytes] = []
    files = Consumer("files", bind=["uploads.#"])

    @files.job(match="uploads.#")
    def store(body: bytes) -> None:
        bodies.append(body)

    await start_worker(files)
    await store.asend(b"\x00\xff")
    await client.asend("files.store", b'{"user_id": 7}')
    amqp.publish(url, "uploads.photo", b"\x89PNG", content_type="image/png", content_encoding="gzip")
    amqp.publish(url, "uploads.photo", b"")

    await eventually_async(lambda: len(bodies) == 4)
    assert set(bodies) == {b"", b"\x00\xff", b"\x89PNG", b'{"user_id": 7}'}


# -- what no queue wants


async def test_a_job_published_before_its_queue_exists_runs_once_there_is_a_worker(
    client: Client, start_worker: StartWorker, url: str
) -> None:
    first, reports = Consumer("first"), Consumer("reports", retry=Retry(max_attempts=1))
    ran: list[Message] = []

    @reports.job(priority=7)
    async def monthly(month: int) -> None:
        ran.append(current_job().message)

    await start_worker(first)
    sent = [
        await monthly.options(headers={"tenant": "acme"}, expires="10m", correlation_id="c").asend(month)
        for month in (1, 2, 3)
    ]
    await eventually_async(lambda: amqp.ready(url, "jobs.unrouted") == 3)  # kept, and the send does not raise
    assert ran == []

    await start_worker(reports)
    await eventually_async(lambda: len(ran) == 3)
    assert sorted(message.id for message in ran) == sorted(handle.id for handle in sent)
    assert sorted(json.loads(message.body)["month"] for message in ran) == [1, 2, 3]
    for message in ran:
        assert (message.job, message.routing_key) == ("reports.monthly", "reports.monthly")
        assert (message.attempt, message.priority, message.correlation_id) == (1, 7, "c")
        assert message.headers == {"tenant": "acme"}
        assert message.not_after > 0
    assert amqp.ready(url, "jobs.unrouted") == 0


async def test_a_job_published_by_others_while_a_worker_runs_is_swept_too(
    client: Client, start_worker: StartWorker, url: str, node: PrivateNode, vhost: str
) -> None:
    """Its binding was missing for a while; a worker looks again every now and then."""
    seen: Seen = []
    reports = Consumer("reports")

    @reports.job()
    async def monthly() -> None:
        note(seen, "reports")

    await start_worker(reports)
    with amqp.channel(url) as channel:
        channel.queue_unbind("reports", "jobs", "reports.#")
    await client.asend("reports.monthly")
    await eventually_async(lambda: amqp.ready(url, "jobs.unrouted") == 1)
    with amqp.channel(url) as channel:
        channel.queue_bind("reports", "jobs", "reports.#")

    await eventually_async(lambda: bool(seen))
    assert seen == [("reports", "reports.monthly")]


async def test_what_matches_nothing_stays_and_holds_up_nothing(
    client: Client, start_worker: StartWorker, url: str
) -> None:
    first, reports = Consumer("first"), Consumer("reports")
    ran: list[int] = []

    @reports.job()
    async def monthly(n: int) -> None:
        ran.append(n)

    await start_worker(first)
    for n in range(3):
        await client.asend("nobody.home", {"n": n}, check_queue=False)
        await client.asend("reports.monthly", {"n": n}, check_queue=False)

    await start_worker(reports)
    await eventually_async(lambda: len(ran) == 3)
    await eventually_async(lambda: amqp.ready(url, "jobs.unrouted") == 3)
    stranded = amqp.peek(url, "jobs.unrouted")
    assert {found.routing_key for found in stranded} == {"nobody.home"}
    assert sorted(json.loads(found.body)["n"] for found in stranded) == [0, 1, 2]
    assert sorted(ran) == [0, 1, 2]


async def test_a_delayed_job_whose_queue_is_gone_when_it_is_due_waits_in_unrouted(
    client: Client, start_worker: StartWorker, url: str, node: PrivateNode, vhost: str
) -> None:
    reports = Consumer("reports")
    ran: list[tuple[int, str]] = []

    @reports.job()
    async def monthly(n: int) -> None:
        ran.append((n, current_job().message.routing_key))

    worker = await start_worker(reports)
    worker.stop()
    await monthly.options(delay=1.0, id="late").asend(7)
    delete_queue(node, vhost, "reports")

    await eventually_async(lambda: amqp.ready(url, "jobs.unrouted") == 1)
    (stranded,) = amqp.peek(url, "jobs.unrouted")
    assert stranded.properties.message_id == "late"

    await start_worker(reports)
    await eventually_async(lambda: bool(ran))
    assert ran == [(7, "reports.monthly")]
    assert amqp.ready(url, "jobs.unrouted") == 0


async def test_a_retry_whose_queue_is_gone_when_it_is_due_comes_back_to_it(
    client: Client, start_worker: StartWorker, url: str, node: PrivateNode, vhost: str
) -> None:
    reports = Consumer("reports", retry=Retry(delays=[1.0]))
    attempts: list[int] = []

    @reports.job()
    async def monthly() -> None:
        attempts.append(current_job().attempt)
        if len(attempts) == 1:
            raise OSError("disk")

    worker = await start_worker(reports)
    await monthly.asend()
    await eventually_async(lambda: attempts == [1])
    await eventually_async(lambda: amqp.ready(url, "reports") == 0)
    worker.stop()
    await _gone(url, "reports", node, vhost)
    await eventually_async(lambda: amqp.ready(url, "jobs.unrouted") == 1)

    await start_worker(reports)
    await eventually_async(lambda: attempts == [1, 2])


async def _gone(url: str, queue: str, node: PrivateNode, vhost: str) -> None:
    """Delete a queue once nobody consumes it, else its worker would make it again."""

    def has_no_consumer() -> bool:
        with amqp.channel(url) as channel:
            return bool(channel.queue_declare(queue, passive=True).method.consumer_count == 0)

    await eventually_async(has_no_consumer)
    await asyncio.to_thread(delete_queue, node, vhost, queue)


async def test_two_workers_sweep_one_after_the_other(
    client: Client, start_worker: StartWorker, url: str
) -> None:
    first, reports = Consumer("first"), Consumer("reports")
    ran: list[int] = []

    @reports.job()
    async def monthly(n: int) -> None:
        ran.append(n)

    await start_worker(first)
    await client.asend_many(monthly.message(n) for n in range(200))
    # The first worker's sweeps hold what they look at.
    await eventually_async(lambda: amqp.ready(url, "jobs.unrouted") == 200)

    await asyncio.gather(start_worker(reports), start_worker(reports), start_worker(reports))
    await eventually_async(lambda: len(set(ran)) == 200)
    await eventually_async(lambda: amqp.ready(url, "jobs.unrouted") == 0)
    assert sorted(ran) == list(range(200)), "each once"


# -- namespaces


async def test_namespaces_do_not_see_each_other(start_worker: StartWorker, settings: Any, url: str) -> None:
    seen: list[tuple[str, int]] = []

    def consumer(space: str) -> Consumer:
        emails = Consumer("emails", bind=["*.created"])

        @emails.job(match="*.created")
        async def welcome(n: int) -> None:
            seen.append((space, n))

        return emails

    shop = settings.model_copy(update={"namespace": "shop"})
    await start_worker(consumer(""))
    await start_worker(consumer("shop"), settings=shop)
    async with Client(settings=settings) as plain, Client(settings=shop) as spaced:
        await plain.asend("emails.welcome", {"n": 1})
        await spaced.asend("emails.welcome", {"n": 2})
        await plain.asend("users.created", {"n": 3}, check_queue=False)
        await spaced.asend("users.created", {"n": 4}, check_queue=False)
        await spaced.asend("emails.welcome", {"n": 5}, delay=0.25)

    await eventually_async(lambda: len(seen) == 5)
    assert sorted(seen) == [("", 1), ("", 3), ("shop", 2), ("shop", 4), ("shop", 5)]
    for queue in (
        "emails",
        "emails.dead",
        "jobs.unrouted",
        "shop.emails",
        "shop.emails.dead",
        "shop.jobs.unrouted",
    ):
        assert amqp.ready(url, queue) == 0
