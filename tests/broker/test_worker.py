"""A worker on a real broker: limits, hooks, decisions by hand, timeouts, lost sessions, topology, drain."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

from brokerjobs import (
    BrokerUnreachable,
    ConfigurationError,
    Consumer,
    Retry,
    TopologyMismatch,
    Worker,
    chores,
    current_job,
    provision,
)
from brokerjobs import settings as settings_module
from brokerjobs.amqp.delivery import Delivery
from brokerjobs.amqp.properties import ContentHeader, read_content_header
from brokerjobs.amqp.session import Session
from brokerjobs.client import Client
from brokerjobs.errors import NotConsuming
from brokerjobs.metrics import Metrics
from brokerjobs.node.private import PrivateNode
from brokerjobs.settings import Settings
from tests import amqp
from tests.conftest import StartWorker
from tests.management import close_connections, delete_queue
from tests.waiting import eventually_async


async def test_no_more_jobs_run_at_once_than_there_are_slots(
    client: Client, start_worker: StartWorker, settings: Settings
) -> None:
    consumer = Consumer("emails")
    running: Counter[str] = Counter()
    most: list[int] = []
    go_on = asyncio.Event()

    @consumer.job()
    async def welcome() -> None:
        running["now"] += 1
        most.append(running["now"])
        await go_on.wait()
        running["now"] -= 1
        running["done"] += 1

    await start_worker(consumer, settings=settings.model_copy(update={"concurrency": 3}))
    await client.asend_many(welcome.message() for _ in range(9))
    await eventually_async(lambda: running["now"] == 3)
    go_on.set()

    await eventually_async(lambda: running["done"] == 9)
    assert max(most) == 3


async def test_start_up_hooks_run_before_jobs_and_shut_down_hooks_after(
    client: Client, start_worker: StartWorker
) -> None:
    consumer = Consumer("emails")
    order: list[str] = []

    @consumer.on_startup
    async def open_pool() -> None:
        order.append("open")

    @consumer.on_shutdown
    def close_pool() -> None:
        order.append("close")

    @consumer.job()
    def welcome() -> None:
        order.append("job")

    worker = await start_worker(consumer)
    await welcome.asend()
    await eventually_async(lambda: "job" in order)
    worker.stop()

    await eventually_async(lambda: order == ["open", "job", "close"])


async def test_failing_start_up_hook_ends_the_worker_with_its_name(start_worker: StartWorker) -> None:
    consumer = Consumer("emails")

    @consumer.on_startup
    def open_pool() -> None:
        raise OSError("no database")

    with pytest.raises(ConfigurationError, match=r"open_pool.*no database"):
        await start_worker(consumer)


async def test_decisions_by_hand_hold(client: Client, start_worker: StartWorker, url: str) -> None:
    consumer = Consumer("emails", retry=Retry(delays=[0.125]))
    ran: list[str] = []

    @consumer.job()
    async def acked() -> None:
        ran.append("acked")
        current_job().ack()
        raise OSError("too late: it is acknowledged")

    @consumer.job()
    def nacked() -> None:
        ran.append("nacked")
        if ran.count("nacked") == 1:
            current_job().nack()

    @consumer.job()
    async def rejected() -> None:
        ran.append("rejected")
        current_job().reject("unknown customer")

    await start_worker(consumer)
    for job in acked, nacked, rejected:
        await job.asend()

    await eventually_async(lambda: Counter(ran) == {"acked": 1, "nacked": 2, "rejected": 1})
    await eventually_async(lambda: amqp.ready(url, "emails.dead") == 1)
    (dead,) = amqp.peek(url, "emails.dead")
    assert (dead.properties.type, dead.headers["brokerjobs-error"]) == ("emails.rejected", "unknown customer")
    assert amqp.ready(url, "emails") == 0


async def test_job_that_outruns_its_timeout_is_failed_and_its_neighbours_run(
    client: Client, start_worker: StartWorker, settings: Settings, url: str
) -> None:
    consumer = Consumer("emails", retry=Retry(max_attempts=1), timeout=0.3)
    release = threading.Event()
    ran: list[int] = []

    @consumer.job()
    def stuck() -> None:
        release.wait(30)

    @consumer.job()
    async def slow() -> None:
        await asyncio.Event().wait()

    @consumer.job()
    def quick(number: int) -> None:
        ran.append(number)

    await start_worker(consumer, settings=settings.model_copy(update={"concurrency": 2}))
    await client.asend_many([stuck.message(), stuck.message(), slow.message()])
    await client.asend_many(quick.message(number) for number in range(5))

    await eventually_async(lambda: sorted(ran) == [0, 1, 2, 3, 4])
    await eventually_async(lambda: amqp.ready(url, "emails.dead") == 3)
    release.set()
    assert {found.headers["brokerjobs-error-kind"] for found in amqp.peek(url, "emails.dead")} == {
        "JobTimeout"
    }


async def test_burst_ends_when_all_queues_are_empty(
    client: Client, settings: Settings, start_worker: StartWorker
) -> None:
    emails, reports = Consumer("emails"), Consumer("reports")
    ran: list[str] = []

    @emails.job()
    async def welcome() -> None:
        ran.append("emails")

    @reports.job()
    def daily() -> None:
        ran.append("reports")

    (await start_worker(emails, reports)).stop()
    await client.asend_many([*(welcome.message() for _ in range(50)), *(daily.message() for _ in range(20))])
    ending = await asyncio.wait_for(Worker([emails, reports], settings, burst=True).run(), 60)

    assert ending.returned == 0
    assert Counter(ran) == {"emails": 50, "reports": 20}


@pytest.mark.parametrize("ends", ["after the redelivery", "before it"])
async def test_lost_connection_loses_no_job_and_repeats_none(
    client: Client, start_worker: StartWorker, node: PrivateNode, url: str, ends: str
) -> None:
    """What comes again is adopted while it runs, absorbed when it has ended; half of the jobs fail and retry."""
    consumer = Consumer("emails", retry=Retry(delays=[0.125]))
    runs: Counter[tuple[int, int]] = Counter()
    go_on = asyncio.Event()

    @consumer.job()
    async def welcome(number: int) -> None:
        runs[number, current_job().attempt] += 1
        await go_on.wait()
        if number % 2 and current_job().attempt == 1:
            raise OSError

    worker = await start_worker(consumer)
    await client.asend_many(welcome.message(number) for number in range(20))
    await eventually_async(lambda: len(runs) == 10)
    lost = asyncio.create_task(session_loss(worker))
    close_connections(node)
    if ends == "before it":
        await lost
        go_on.set()
    else:
        await eventually_async(lambda: recognised(worker, "adopted") == 10)
        go_on.set()
        await lost

    await eventually_async(lambda: len(runs) == 30)
    await eventually_async(lambda: amqp.ready(url, "emails") == 0)
    await eventually_async(lambda: all(lane.is_idle for lane in worker._lanes))
    assert set(runs.values()) == {1}
    assert recognised(worker, "adopted") + recognised(worker, "absorbed") == 10
    assert sample(worker, "jobs_redelivered_total", queue="emails") == 10
    for role in "consumer", "publisher":
        assert sample(worker, "broker_reconnects_total", role=role) == 1
        assert sample(worker, "broker_connected", role=role) == 1


def recognised(worker: Worker, how: str) -> float:
    return float(worker.metrics.recognised.labels("emails", how)._value.get())


async def session_loss(worker: Worker) -> None:
    await eventually_async(lambda: not worker._connected.is_set())


async def test_session_that_gets_nothing_though_messages_wait_is_replaced(
    client: Client, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chores, "WATCH_INTERVAL", 0.2)
    consumer = Consumer("emails")
    ran: list[int] = []

    @consumer.job()
    async def welcome(number: int) -> None:
        ran.append(number)

    opened: list[Session] = []
    open_session = Session.open

    async def noted(settings: Settings, role: str) -> Session:
        opened.append(await open_session(settings, role))
        return opened[-1]

    monkeypatch.setattr(Session, "open", noted)
    await start_worker(consumer)
    await opened[0].cancel("emails")  # as if the broker had forgotten the consumer
    await welcome.asend(1)

    await eventually_async(lambda: ran == [1])
    assert opened[0].reason == chores.STALLED


async def test_standby_of_a_single_active_consumer_stays_so(
    client: Client, settings: Settings, start_worker: StartWorker, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chores, "WATCH_INTERVAL", 0.2)
    consumer = Consumer("emails")
    ran: list[int] = []
    go_on = asyncio.Event()

    @consumer.job()
    async def welcome(number: int) -> None:
        ran.append(number)
        await go_on.wait()

    renewed: list[str] = []
    renew = Session.renew

    async def noted(self: Session, name: str) -> None:
        renewed.append(name)
        await renew(self, name)

    (await start_worker(consumer)).stop()
    with amqp.channel(url) as channel:
        channel.queue_delete("emails")
        kind = {"x-queue-type": "quorum", "x-single-active-consumer": True}
        channel.queue_declare("emails", durable=True, arguments=kind)
    monkeypatch.setattr(Session, "renew", noted)
    one_job = settings.model_copy(update={"concurrency": 1})
    with capture_logs() as lines:
        active = await start_worker(consumer, settings=one_job)
        await client.asend_many(welcome.message(number) for number in range(3))
        await eventually_async(lambda: ran == [0])
        await start_worker(consumer, settings=one_job)
        await eventually_async(lambda: len(renewed) >= 4)
        active.stop()
        go_on.set()
        await eventually_async(lambda: sorted(ran) == [0, 1, 2])
    told = [line for line in lines if line["event"] == "not consuming"]
    assert [line["log_level"] for line in told] == ["warning"]
    assert "session ended" not in [line["event"] for line in lines]


async def test_worker_that_never_gets_what_waits_ends(
    client: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs it starts it anew, perhaps elsewhere."""
    monkeypatch.setattr(chores, "WATCH_INTERVAL", 0.05)
    consumer = Consumer("emails")
    consumer.job(name="welcome")(lambda: None)
    consume = Session.consume

    async def never(self: Session, *args: Any, **options: Any) -> None:
        await consume(self, *args, **{**options, "paused": True})

    async def not_at_all(self: Session, name: str) -> None: ...

    monkeypatch.setattr(Session, "consume", never)
    monkeypatch.setattr(Session, "renew", not_at_all)
    worker = Worker([consumer], settings)
    running = asyncio.create_task(worker.run())
    await asyncio.wait_for(worker.consuming(), 60)
    await client.asend("emails.welcome")

    with pytest.raises(NotConsuming, match="messages wait, and RabbitMQ delivers none"):
        await asyncio.wait_for(running, 60)


async def test_deleted_queue_is_declared_and_consumed_again_and_the_others_do_not_notice(
    client: Client, start_worker: StartWorker, node: PrivateNode, vhost: str, url: str
) -> None:
    emails, reports = Consumer("emails"), Consumer("reports")
    ran: list[int] = []
    runs: list[bool] = []
    go_on = asyncio.Event()

    @emails.job()
    async def welcome(number: int) -> None:
        ran.append(number)

    @reports.job()
    async def long() -> None:
        runs.append(current_job().redelivered)
        await go_on.wait()

    with capture_logs() as lines:
        worker = await start_worker(emails, reports)
        await welcome.asend(1)
        await long.asend()
        await eventually_async(lambda: ran == [1] and len(runs) == 1)
        delete_queue(node, vhost, "emails")
        await eventually_async(lambda: "queue lost" in [line["event"] for line in lines])
        await welcome.asend(2)  # into the queue again, or into jobs.unrouted, from where it is swept
        await eventually_async(lambda: ran == [1, 2])
        go_on.set()
        await eventually_async(lambda: all(lane.is_idle for lane in worker._lanes))
        await long.asend()
        await eventually_async(lambda: len(runs) == 2)
        await eventually_async(lambda: amqp.ready(url, "reports") == 0)

    assert runs == [False, False]
    events = [line["event"] for line in lines]
    assert not {"session ended", "settlement lost", "job adopted", "job absorbed"} & set(events)
    lost = next(line for line in lines if line["event"] == "queue lost")
    assert lost["queue"] == "emails"
    assert "the queue was deleted" in lost["reason"]


async def test_no_queue_waits_until_another_is_consumed(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RabbitMQ's answer for the second would come after all that the first has brought."""
    both_asked, consume = asyncio.Barrier(2), Session.consume

    async def consume_together(self: Session, queue: str, name: str, *args: Any, **more: Any) -> None:
        if name in ("emails", "reports"):
            await asyncio.wait_for(both_asked.wait(), 10)
        await consume(self, queue, name, *args, **more)

    monkeypatch.setattr(Session, "consume", consume_together)
    await start_worker(Consumer("emails"), Consumer("reports"))


async def test_queue_that_cannot_be_consumed_keeps_no_other_from_it(
    client: Client,
    start_worker: StartWorker,
    node: PrivateNode,
    vhost: str,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was made anew with other arguments; when it is right again, it is consumed again."""
    ensure, is_there = provision.ensure, asyncio.Event()

    async def ensure_later(*args: Any) -> None:
        await is_there.wait()
        await ensure(*args)

    monkeypatch.setattr(provision, "ensure", ensure_later)
    emails, reports = Consumer("emails", queue_type="classic"), Consumer("reports")
    ran: list[str] = []
    emails.job(name="welcome")(lambda: ran.append("email"))
    reports.job(name="monthly")(lambda: ran.append("report"))

    with capture_logs() as lines:
        is_there.set()
        worker = await start_worker(emails, reports)
        gate = worker._lanes[0].gate
        is_there.clear()
        with amqp.channel(url) as channel:
            channel.queue_delete("emails")
            # RabbitMQ 3.10 goes on to consume what has the name of a queue of whose end it has not told yet.
            await eventually_async(lambda: "queue lost" in [line["event"] for line in lines])
            channel.queue_declare("emails", durable=True, arguments={"x-max-length": 7})
        is_there.set()
        await eventually_async(lambda: "exists with other arguments" in gate.pauses.get("broker", ""))
        lost = asyncio.create_task(session_loss(worker))
        close_connections(node)  # nor does it when all begins anew
        await lost
        await asyncio.wait_for(worker.consuming(), 60)
        await client.asend("reports.monthly")
        await eventually_async(lambda: ran == ["report"])
        assert "broker" in gate.pauses

        delete_queue(node, vhost, "emails")
        await client.asend("emails.welcome", check_queue=False)
        await eventually_async(lambda: ran == ["report", "email"])
    assert not gate.is_paused
    assert "queue not consumed" in [line["event"] for line in lines]


@pytest.mark.parametrize("kind", ["classic", "quorum"])
@pytest.mark.parametrize("within", [60.0, None])
async def test_session_knows_which_queues_count_deliveries(
    settings: Settings, url: str, kind: str, within: float | None
) -> None:
    """A header of that name may come from anybody."""
    arrived: asyncio.Queue[Delivery] = asyncio.Queue()
    with amqp.channel(url) as channel:
        channel.queue_declare("emails", durable=True, arguments={"x-queue-type": kind})
    amqp.publish(url, "emails", b"{}", exchange="", headers={"x-delivery-count": 7})
    session = await Session.open(settings, "test")
    try:
        await session.consume("emails", "emails", 1, arrived.put_nowait, within=within, ask_kind=True)
        delivery = await asyncio.wait_for(arrived.get(), 30)
        assert delivery.is_counted is (kind == "quorum")
        await delivery.ack()
    finally:
        await session.close()


async def test_check_mode_names_what_is_missing_and_declares_nothing(
    settings: Settings, start_worker: StartWorker
) -> None:
    consumer = Consumer("emails")
    checking = settings.model_copy(update={"topology": "check"})

    with pytest.raises(
        TopologyMismatch, match=r"missing in RabbitMQ: jobs\.unrouted.*brokerjobs topology apply"
    ):
        await start_worker(consumer, settings=checking)
    with pytest.raises(TopologyMismatch, match="there is no queue 'emails'"):
        await start_worker(consumer, settings=settings.model_copy(update={"topology": "none"}))
    (await start_worker(consumer)).stop()
    await start_worker(consumer, settings=checking)


async def test_existing_queue_wins_unless_its_kind_was_asked_for(
    client: Client, settings: Settings, start_worker: StartWorker, url: str
) -> None:
    ran: list[str] = []
    with amqp.channel(url) as channel:
        channel.queue_declare(
            "emails", durable=True, arguments={"x-queue-type": "classic", "x-max-priority": 3}
        )

    def emails(**options: object) -> Consumer:
        consumer = Consumer("emails", **options)  # type: ignore[arg-type]
        consumer.job(name="welcome")(lambda: ran.append("ran"))
        return consumer

    with pytest.raises(
        TopologyMismatch, match=r"queue 'emails' exists with other arguments.*inequivalent arg"
    ):
        await start_worker(emails(queue_type="classic"))
    await start_worker(emails())
    await client.asend("emails.welcome")

    await eventually_async(lambda: ran == ["ran"])


async def test_namespaces_do_not_see_each_other(settings: Settings, start_worker: StartWorker) -> None:
    seen: list[str] = []

    def emails(name: str) -> Consumer:
        consumer = Consumer("emails")
        consumer.job(name="welcome")(lambda: seen.append(name))
        return consumer

    shop = settings.model_copy(update={"namespace": "shop"})
    await start_worker(emails("shop"), settings=shop)
    await start_worker(emails("none"))
    async with Client(settings=shop) as client:
        await client.asend("emails.welcome", delay=0.25)
    async with Client(settings=settings) as client:
        await client.asend("emails.welcome")

    await eventually_async(lambda: sorted(seen) == ["none", "shop"])


async def test_drain_finishes_what_runs_and_returns_what_does_not_end(
    client: Client, settings: Settings, start_worker: StartWorker, url: str
) -> None:
    consumer = Consumer("emails")
    started: list[str] = []
    finish = asyncio.Event()

    @consumer.job()
    async def short() -> None:
        started.append("short")
        await finish.wait()

    @consumer.job()
    async def endless() -> None:
        started.append("endless")
        await asyncio.Event().wait()

    @consumer.job()
    async def waiting() -> None:
        started.append("waiting")

    quick = settings.model_copy(update={"concurrency": 2, "prefetch": 5, "drain_timeout": 1.0})
    worker = Worker([consumer], quick)
    running = asyncio.create_task(worker.run())
    await asyncio.wait_for(worker.consuming(), 60)
    await client.asend_many([short.message(), endless.message()])
    await eventually_async(lambda: len(started) == 2)
    await client.asend_many(waiting.message() for _ in range(3))
    worker.stop()
    finish.set()
    ending = await asyncio.wait_for(running, 60)

    assert ending.returned == 1
    assert started == ["short", "endless"]
    await eventually_async(lambda: amqp.ready(url, "emails") == 4)
    assert {found.properties.type for found in amqp.peek(url, "emails")} == {
        "emails.endless",
        "emails.waiting",
    }


async def test_retry_that_cannot_be_confirmed_holds_the_job_without_a_hot_loop(
    client: Client, start_worker: StartWorker, settings: Settings, url: str
) -> None:
    consumer = Consumer("emails", retry=Retry(delays=[0.125]))
    attempts: list[int] = []

    @consumer.job()
    async def welcome() -> None:
        attempts.append(current_job().attempt)
        if current_job().attempt == 1:
            raise OSError

    worker = await start_worker(consumer, settings=settings.model_copy(update={"publish_timeout": 0.5}))
    with amqp.channel(url) as channel:
        channel.exchange_delete("jobs.v1.delay.00")
    await welcome.asend()
    await eventually_async(lambda: worker._lanes[0].gate.is_paused)
    await welcome.asend()
    await eventually_async(lambda: amqp.ready(url, "emails") == 1)  # the paused queue takes no other job
    assert attempts == [1]
    with amqp.channel(url) as channel:
        channel.exchange_declare("jobs.v1.delay.00", "fanout", durable=True)
        channel.queue_bind("jobs.v1.delay.00", "jobs.v1.delay.00", "")

    await eventually_async(lambda: sorted(attempts) == [1, 1, 2, 2])


async def test_metrics_count_what_happened(
    settings: Settings, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chores, "LOOK_INTERVAL", 0.1)
    consumer = Consumer("emails", retry=Retry(delays=[0.125]))

    @consumer.job()
    async def welcome(ok: bool) -> None:
        if not ok:
            raise OSError

    worker = await start_worker(consumer, settings=settings.model_copy(update={"metrics_port": 0}))
    value = partial(sample, worker)
    sent = Metrics()
    async with Client(settings=settings, metrics=sent) as client:
        await client.asend_many([welcome.message(True), welcome.message(True), welcome.message(False)])
        assert sent.registry.get_sample_value("brokerjobs_publish_duration_seconds_count") == 0
        await client.asend_message(welcome.message(True))
        await asyncio.to_thread(client.send_message, welcome.message(True))
    assert sent.registry.get_sample_value("brokerjobs_publish_duration_seconds_count") == 2
    assert sent.registry.get_sample_value("brokerjobs_jobs_published_total", {"outcome": "confirmed"}) == 5

    def counted(outcome: str) -> float:
        return float(worker.metrics.finished.labels("emails", "emails.welcome", outcome).value)

    await eventually_async(lambda: counted("dead") == 1)
    await eventually_async(lambda: counted("succeeded") == 4)
    assert (counted("retried"), value("jobs_received_total", queue="emails", job_name="emails.welcome")) == (
        1,
        6,
    )
    assert value("jobs_in_progress", queue="emails") == 0
    await eventually_async(lambda: value("jobs_published_total", outcome="confirmed") == 2)  # the copies
    assert value("publish_duration_seconds_count") == 2
    assert value("job_failures_total", queue="emails", job_name="emails.welcome", exception="OSError") == 2
    assert value("job_attempts_count", queue="emails") == 5

    await eventually_async(lambda: value("queue_messages", queue="emails", state="dead") == 1)
    await eventually_async(lambda: value("queue_messages", queue="emails", state="ready") == 0)
    assert value("queue_consumers", queue="emails") == 1
    assert value("queue_oldest_age_seconds", queue="emails") == 0
    for role in "consumer", "publisher":
        assert (value("broker_connected", role=role), value("broker_reconnects_total", role=role)) == (1, 0)


def sample(worker: Worker, name: str, **labels: str) -> float | None:
    return worker.metrics.registry.get_sample_value(f"brokerjobs_{name}", labels)


async def test_worker_that_never_finds_a_broker_gives_up_after_its_start_timeout() -> None:
    nowhere = settings_module.load(url="amqp://guest:secret@127.0.0.1:1/", connect_timeout=0.5)

    with pytest.raises(BrokerUnreachable, match=r"127\.0\.0\.1:1 cannot be reached") as caught:
        await asyncio.wait_for(Worker([Consumer("emails")], nowhere, start_timeout=0.2).run(), 30)

    assert "secret" not in str(caught.value)


async def test_message_that_ends_every_session_makes_no_hot_loop(
    start_worker: StartWorker, url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = Consumer("emails")
    consumer.job(name="welcome")(lambda: None)
    opened: list[float] = []
    open_session = Session.open

    async def noted(settings: Settings, role: str) -> Session:
        opened.append(asyncio.get_running_loop().time())
        return await open_session(settings, role)

    def overlooked(data: bytes) -> ContentHeader:
        if b"odd one" in data:
            raise OverflowError("a kind of message that nobody has thought of")
        return read_content_header(data)

    monkeypatch.setattr(Session, "open", noted)
    with capture_logs() as lines:
        await start_worker(consumer, settings=settings.model_copy(update={"fast_lane": False}))
        monkeypatch.setattr("brokerjobs.amqp.guard.read_content_header", overlooked)
        amqp.publish(url, "emails.welcome", b"{}", message_id="odd one")

        await eventually_async(lambda: len(opened) >= 6)
    assert opened[5] - opened[1] >= 0.5 * (0.2 + 0.4 + 0.8)
    told = next(line for line in lines if line["event"] == "queue held up")
    assert (told["queues"], told["sessions"]) == ("emails", 3)
    assert "nobody has thought of" in told["error"]
