"""What runs first: within a queue by priority, between queues in strict order or side by side."""

from __future__ import annotations

import asyncio
import threading

import pytest

from brokerjobs import Client, Consumer, Message, Retry, Settings, current_job, provision
from brokerjobs.amqp.connection import Connection
from brokerjobs.node.private import PrivateNode
from tests import amqp
from tests.conftest import StartWorker
from tests.management import queue
from tests.waiting import eventually_async

PRIORITIES = [3, 9, 0, 5, 9, 1, 4, 0, 8, 5]


@pytest.fixture
def one_at_a_time(settings: Settings) -> Settings:
    return settings.model_copy(update={"concurrency": 1})


async def declare(consumers: list[Consumer], settings: Settings) -> None:
    """As `brokerjobs topology apply` does: the queues are there before any worker."""
    connection = await Connection.open(settings, "test")
    await provision.ensure(connection, consumers, settings)
    await connection.close()


class Gate:
    """A first job that keeps its slot until it is opened, so that what is sent meanwhile lies in the queue."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()

    async def __call__(self) -> None:
        self.entered.set()
        await self.opened.wait()


async def lies_ready(url: str, count: int, queue: str = "emails") -> None:
    await eventually_async(lambda: amqp.ready(url, queue) == count)


async def test_higher_runs_first_and_equals_in_order(
    client: Client, start_worker: StartWorker, one_at_a_time: Settings, url: str
) -> None:
    emails, gate, ran = Consumer("emails"), Gate(), list[tuple[int, int]]()

    @emails.job()
    async def first() -> None:
        await gate()

    @emails.job()
    async def mail(priority: int, n: int) -> None:
        ran.append((priority, n))

    await start_worker(emails, settings=one_at_a_time)
    await first.asend()
    await asyncio.wait_for(gate.entered.wait(), 10)
    for n, priority in enumerate(PRIORITIES):
        await mail.options(priority=priority).asend(priority, n)
    await lies_ready(url, len(PRIORITIES))
    gate.opened.set()

    await eventually_async(lambda: len(ran) == len(PRIORITIES))
    assert ran == sorted(
        ((priority, n) for n, priority in enumerate(PRIORITIES)), key=lambda it: (-it[0], it[1])
    )


async def test_a_priority_survives_delay_retry_and_the_dead_letter(
    client: Client, start_worker: StartWorker, url: str
) -> None:
    emails, seen = Consumer("emails", retry=Retry(delays=[0.125, 0.25])), list[int | None]()

    @emails.job(priority=8)
    async def mail() -> None:
        seen.append(current_job().message.priority)
        raise OSError("mail server is away")

    await start_worker(emails)
    await mail.options(priority=7, delay=0.125).asend()

    await eventually_async(lambda: amqp.ready(url, "emails.dead") == 1)
    assert seen == [7, 7, 7]
    assert amqp.peek(url, "emails.dead")[0].properties.priority == 7


async def test_a_prefetch_of_one_lets_a_late_high_priority_pass_all_that_waits(
    client: Client, start_worker: StartWorker, settings: Settings, url: str
) -> None:
    """With as many deliveries as slots nothing waits in the worker, where priorities would not count."""
    emails, gate, ran = Consumer("emails"), Gate(), list[str]()

    @emails.job()
    async def first() -> None:
        await gate()

    @emails.job()
    async def mail(name: str) -> None:
        ran.append(name)

    await start_worker(emails, settings=settings.model_copy(update={"concurrency": 2}))
    await asyncio.gather(first.asend(), first.asend())
    await asyncio.wait_for(gate.entered.wait(), 10)
    await lies_ready(url, 0)
    for n in range(20):
        await mail.asend(f"early {n}")
    await mail.options(priority=9).asend("late")
    await lies_ready(url, 21)
    gate.opened.set()

    await eventually_async(lambda: len(ran) == 21)
    assert "late" in ran[:2]


async def test_strict_order_between_queues(
    client: Client, start_worker: StartWorker, one_at_a_time: Settings, url: str
) -> None:
    critical, low, gate, ran = Consumer("critical"), Consumer("low"), Gate(), list[str]()

    @low.job()
    async def slow(n: int) -> None:
        ran.append(f"low {n}")
        if n == 0:
            await gate()

    @critical.job()
    async def urgent(n: int) -> None:
        ran.append(f"critical {n}")

    await start_worker(critical, low, settings=one_at_a_time, strict=True)
    await client.asend_many(slow.message(n) for n in range(3))
    await asyncio.wait_for(gate.entered.wait(), 10)
    await client.asend_many(urgent.message(n) for n in range(3))
    # The slot that both share is taken; one critical delivery waits in the worker, the rest in the queues.
    await lies_ready(url, 2, "critical")
    await lies_ready(url, 2, "low")
    gate.opened.set()

    await eventually_async(lambda: len(ran) == 6)
    assert ran == ["low 0", "critical 0", "critical 1", "critical 2", "low 1", "low 2"]


async def test_no_lower_job_slips_between_short_jobs_of_a_higher_queue(
    client: Client, start_worker: StartWorker, one_at_a_time: Settings
) -> None:
    critical, middle, low, ran = Consumer("critical"), Consumer("middle"), Consumer("low"), list[str]()
    queues = [critical, middle, low]
    for consumer in queues:
        consumer.job(name="job")(lambda queue=consumer.queue: ran.append(queue))
    await declare(queues, one_at_a_time)
    for name in "low.job", "middle.job", "critical.job":
        await client.asend_many([Message(job=name, routing_key=name) for _ in range(25)])

    await start_worker(*queues, settings=one_at_a_time, strict=True)

    await eventually_async(lambda: len(ran) == 75)
    assert ran == ["critical"] * 25 + ["middle"] * 25 + ["low"] * 25


@pytest.mark.parametrize("strict", [False, True])
async def test_slots_are_per_queue_unless_strict(
    client: Client, start_worker: StartWorker, settings: Settings, strict: bool
) -> None:
    one, two = Consumer("one"), Consumer("two")
    running, most, gate = 0, 0, Gate()

    async def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await gate()
        running -= 1

    one.job(name="work")(work)
    two.job(name="work")(work)
    await start_worker(one, two, settings=settings.model_copy(update={"concurrency": 3}), strict=strict)
    for name in ("one.work", "two.work") * 5:
        await client.asend(name)

    expected = 3 if strict else 6
    await eventually_async(lambda: running == expected)
    gate.opened.set()
    await eventually_async(lambda: running == 0)
    assert most == expected


@pytest.mark.parametrize("kind", ["async", "threads"])
async def test_a_blocked_queue_does_not_stop_another(
    client: Client, start_worker: StartWorker, settings: Settings, url: str, kind: str
) -> None:
    stuck, lively, ran = Consumer("stuck"), Consumer("lively"), list[int]()
    gate, door = Gate(), threading.Event()

    @stuck.job()
    async def on_loop() -> None:
        await gate()

    loop = asyncio.get_running_loop()

    @stuck.job()
    def in_thread() -> None:
        loop.call_soon_threadsafe(gate.entered.set)
        assert door.wait(60)

    @lively.job()
    def quick(n: int) -> None:
        ran.append(n)

    await start_worker(stuck, lively, settings=settings.model_copy(update={"concurrency": 2}))
    blocking = on_loop if kind == "async" else in_thread
    await client.asend_many(blocking.message() for _ in range(10))
    await asyncio.wait_for(gate.entered.wait(), 10)
    await client.asend_many(quick.message(n) for n in range(50))

    await eventually_async(lambda: len(ran) == 50)
    assert amqp.ready(url, "stuck") == 8
    gate.opened.set()
    door.set()


async def test_a_queue_without_priorities_runs_in_order(
    client: Client,
    start_worker: StartWorker,
    one_at_a_time: Settings,
    url: str,
    node: PrivateNode,
    vhost: str,
) -> None:
    emails, gate, ran = Consumer("emails", queue_type="classic", priorities=False), Gate(), list[int]()

    @emails.job()
    async def first() -> None:
        await gate()

    @emails.job()
    async def mail(n: int) -> None:
        ran.append(n)

    await start_worker(emails, settings=one_at_a_time)
    assert "x-max-priority" not in queue(node, vhost, "emails")["arguments"]
    await first.asend()
    await asyncio.wait_for(gate.entered.wait(), 10)
    for n, priority in enumerate(PRIORITIES):
        await mail.options(priority=priority).asend(n)
    await lies_ready(url, len(PRIORITIES))
    gate.opened.set()

    await eventually_async(lambda: len(ran) == len(PRIORITIES))
    assert ran == list(range(len(PRIORITIES)))


async def test_the_kind_of_queue_follows_the_version(
    start_worker: StartWorker, node: PrivateNode, vhost: str
) -> None:
    await start_worker(Consumer("emails"), Consumer("plain", queue_type="classic"))

    emails, plain = queue(node, vhost, "emails"), queue(node, vhost, "plain")
    if node.version >= (4, 3):
        assert emails["arguments"]["x-queue-type"] == "quorum"
        assert "x-max-priority" not in emails["arguments"]
    else:
        assert emails["arguments"]["x-queue-type"] == "classic"
        assert emails["arguments"]["x-max-priority"] == 9
    assert plain["arguments"]["x-queue-type"] == "classic"
    assert plain["arguments"]["x-max-priority"] == 9
    assert emails["durable"]
