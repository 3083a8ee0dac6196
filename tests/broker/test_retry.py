"""A failed job waits in the delay levels and runs again, in exactly the queue that failed, or dies."""

from __future__ import annotations

import json
import time

import pytest

from brokerjobs import Consumer, Reject, Retry, RetryLater, current_job
from brokerjobs.client import Client
from brokerjobs.settings import Settings
from tests import amqp
from tests.conftest import StartWorker
from tests.waiting import eventually_async


async def test_failing_job_runs_again_after_each_delay_until_it_succeeds(
    client: Client, start_worker: StartWorker
) -> None:
    consumer = Consumer("emails", retry=Retry(delays=[0.25, 0.5]))
    attempts: list[tuple[int, float]] = []

    @consumer.job()
    async def welcome() -> None:
        attempts.append((current_job().attempt, time.monotonic()))
        if len(attempts) < 3:
            raise ConnectionError("mail server is away")

    await start_worker(consumer)
    await welcome.asend()

    await eventually_async(lambda: len(attempts) == 3)
    assert [attempt for attempt, _ in attempts] == [1, 2, 3]
    first, second, third = (at for _, at in attempts)
    assert second - first >= 0.25
    assert third - second >= 0.5


async def test_exhausted_job_dies_with_error_traceback_and_history(
    client: Client, start_worker: StartWorker, url: str
) -> None:
    consumer = Consumer("emails", retry=Retry(delays=[0.125, 0.125]))

    @consumer.job()
    def receipt(order_id: str) -> None:
        raise ValueError(f"no such order: {order_id}")

    await start_worker(consumer)
    handle = await receipt.asend("A1")

    await eventually_async(lambda: amqp.ready(url, "emails.dead") == 1)
    (dead,) = amqp.peek(url, "emails.dead")
    assert dead.properties.message_id == handle.id
    assert dead.properties.type == "emails.receipt"
    assert json.loads(dead.body) == {"order_id": "A1"}
    assert dead.headers["brokerjobs-reason"] == "exhausted"
    assert dead.headers["brokerjobs-error"] == "no such order: A1"
    assert dead.headers["brokerjobs-error-kind"] == "ValueError"
    assert dead.headers["brokerjobs-attempt"] == 3
    assert "in receipt" in dead.headers["brokerjobs-traceback"]
    history = json.loads(dead.headers["brokerjobs-history"])
    assert [entry["attempt"] for entry in history] == [1, 2, 3]
    assert not [name for name in dead.headers if name.startswith("x-")]
    assert amqp.ready(url, "emails") == 0


async def test_error_that_is_never_retried_dies_at_once(
    client: Client, start_worker: StartWorker, url: str
) -> None:
    consumer = Consumer("emails", retry=Retry(on=ConnectionError, never_on=ConnectionRefusedError))
    ran: list[int] = []

    @consumer.job()
    async def refused() -> None:
        ran.append(1)
        raise ConnectionRefusedError

    @consumer.job()
    async def other() -> None:
        ran.append(2)
        raise KeyError("x")

    @consumer.job()
    async def reject() -> None:
        ran.append(3)
        raise Reject("the address does not exist")

    await start_worker(consumer)
    for job in refused, other, reject:
        await job.asend()

    await eventually_async(lambda: amqp.ready(url, "emails.dead") == 3)
    reasons = {
        found.properties.type: found.headers["brokerjobs-reason"] for found in amqp.peek(url, "emails.dead")
    }
    assert reasons == {"emails.refused": "failed", "emails.other": "failed", "emails.reject": "rejected"}
    assert sorted(ran) == [1, 2, 3]


async def test_retry_later_spends_no_attempt(client: Client, start_worker: StartWorker) -> None:
    consumer = Consumer("emails", retry=Retry(max_attempts=1))
    attempts: list[int] = []

    @consumer.job()
    async def limited() -> None:
        attempts.append(current_job().attempt)
        if len(attempts) < 4:
            raise RetryLater(0.125)

    await start_worker(consumer)
    await limited.asend()

    await eventually_async(lambda: len(attempts) == 4)
    assert attempts == [1, 1, 1, 1]


async def test_retry_returns_to_the_queue_that_failed_only(client: Client, start_worker: StartWorker) -> None:
    orders = Consumer("orders", retry=Retry(delays=[0.125]))
    audit = Consumer("audit", bind=["orders.*"], retry=Retry(delays=[0.125]))
    seen: list[tuple[str, int, str]] = []

    @orders.job()
    async def created(order: int) -> None:
        seen.append(("orders", current_job().attempt, current_job().message.routing_key))

    @audit.job(match="orders.*")
    async def record(order: int) -> None:
        seen.append(("audit", current_job().attempt, current_job().message.routing_key))
        if current_job().attempt == 1:
            raise OSError("disk")

    await start_worker(orders, audit)
    await created.asend(7)

    await eventually_async(lambda: len(seen) == 3)
    assert sorted(seen) == [
        ("audit", 1, "orders.created"),
        ("audit", 2, "orders.created"),
        ("orders", 1, "orders.created"),
    ]


async def test_unknown_job_waits_three_times_then_dies(
    client: Client, start_worker: StartWorker, settings: Settings, url: str
) -> None:
    consumer = Consumer("emails")

    @consumer.job()
    async def welcome() -> None: ...

    await start_worker(consumer)
    await client.asend("emails.not_yet_deployed")

    await eventually_async(lambda: amqp.ready(url, "emails.dead") == 1)
    (dead,) = amqp.peek(url, "emails.dead")
    assert dead.headers["brokerjobs-reason"] == "unknown_job"
    assert dead.headers["brokerjobs-unknown"] == 3
    assert "emails.not_yet_deployed" in dead.headers["brokerjobs-error"]
    assert "emails.welcome" in dead.headers["brokerjobs-error"]


@pytest.mark.parametrize("seconds", [0.125, 1.0, 1.625])
async def test_delayed_job_never_runs_early(
    client: Client, start_worker: StartWorker, seconds: float
) -> None:
    consumer = Consumer("emails")
    started: list[float] = []

    @consumer.job()
    async def welcome() -> None:
        started.append(time.time())

    await start_worker(consumer)
    sent = time.time()
    await welcome.options(delay=seconds).asend()

    await eventually_async(lambda: bool(started))
    assert started[0] - sent >= seconds - 0.001  # queues expire on whole milliseconds


async def test_delays_of_any_mix_arrive_in_due_order(client: Client, start_worker: StartWorker) -> None:
    consumer = Consumer("emails")
    order: list[int] = []

    @consumer.job()
    async def at(eighths: int) -> None:
        order.append(eighths)

    await start_worker(consumer)
    delays = [24, 3, 16, 8, 13]
    await client.asend_many(at.options(delay=eighths / 8).message(eighths) for eighths in delays)

    await eventually_async(lambda: len(order) == len(delays))
    assert order == sorted(delays)
