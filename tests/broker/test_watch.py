"""A watch sees what queues hold and workers do, over AMQP alone, and leaves no trace in RabbitMQ's log."""

from __future__ import annotations

import asyncio
import time

import pytest
from pydantic import SecretStr

from brokerjobs import Consumer, Reject, control
from brokerjobs.client import Client
from brokerjobs.errors import BrokerUnreachable
from brokerjobs.inspection import Course, Watch
from brokerjobs.node.private import PrivateNode
from brokerjobs.settings import Settings
from tests import amqp
from tests.conftest import StartWorker
from tests.waiting import eventually_async

AMPLE = 30.0  # seconds


@pytest.fixture
def alone(settings: Settings) -> Settings:
    """Two slots, and no management API."""
    away = SecretStr("http://guest:secret@127.0.0.1:9")
    return settings.model_copy(update={"management_url": away, "concurrency": 2})


def complaints(node: PrivateNode, vhost: str) -> int:
    """How often RabbitMQ has logged a question for a queue that is not there."""
    lines = node.log.read_text(errors="replace").splitlines()
    return sum("no queue" in line and f"'{vhost}'" in line for line in lines)


async def test_watch_sees_what_queues_hold_and_workers_do(
    alone: Settings, client: Client, start_worker: StartWorker, node: PrivateNode, url: str, vhost: str
) -> None:
    emails, course = Consumer("emails"), Course()
    go_on = asyncio.Event()

    @emails.job()
    async def welcome(user_id: int) -> None:
        if user_id == 13:
            raise Reject("no such user")

    @emails.job()
    async def stay() -> None:
        await go_on.wait()

    worker = await start_worker(emails, settings=alone)
    async with Watch(alone) as watch:  # which knows no queue; the worker tells
        first = await watch.look()
        assert [counts.queue for counts in first.snapshot.queues] == ["emails"]
        assert course.take(first)["emails"].done is None
        asked = complaints(node, vhost)

        for user in (1, 2, 3, 13):
            await welcome.asend(user)
        await eventually_async(lambda: worker._lanes[0].work.done == 4 and worker._lanes[0].is_idle)
        second = await watch.look()
        flow, elapsed = course.take(second)["emails"], second.at - first.at
        assert flow.arrivals == pytest.approx(4 / elapsed)
        assert flow.done == pytest.approx(4 / elapsed)
        assert flow.failed == pytest.approx(1 / elapsed)
        [failure] = second.workers[0].failures
        assert (failure.job, failure.outcome, failure.error) == (
            "emails.welcome", "dead", "Reject: no such user",
        )  # fmt: skip

        before = time.time()
        for _ in range(5):
            await stay.asend()
        await eventually_async(lambda: worker._lanes[0].running == 2 and amqp.ready(url, "emails") <= 3)
        held = worker._lanes[0].held
        third = await watch.look()
        flow = course.take(third)["emails"]
        assert third.snapshot.queues[0].ready == 5 - held
        assert (flow.running, flow.slots) == (2, 2)
        assert [job.job for job in third.workers[0].running] == 2 * ["emails.stay"]
        if held < 5:
            assert flow.oldest is not None
            assert 0 <= flow.oldest <= third.at - before + 1  # a message's time is in whole seconds

        await control.pause(alone, "emails", "maintenance")
        await eventually_async(lambda: worker._lanes[0].gate.is_paused)
        assert (await watch.look()).snapshot.queues[0].paused
        assert complaints(node, vhost) == asked

        go_on.set()
        await eventually_async(lambda: worker._lanes[0].is_idle)
        worker.stop()
        async with asyncio.timeout(AMPLE):
            while (await watch.look()).workers:
                pass


async def test_watch_says_nothing_of_rates_while_somebody_consumes_who_does_not_tell(
    alone: Settings, start_worker: StartWorker, url: str
) -> None:
    course = Course()
    await start_worker(Consumer("emails"), settings=alone)
    with amqp.channel(url) as channel:
        channel.basic_consume("emails", lambda *_: None)
        async with Watch(alone, patience=0.2) as watch:
            for _ in range(2):
                look = await watch.look()
                flow = course.take(look)["emails"]
    assert look.snapshot.queues[0].consumers == 2
    assert (len(look.workers), flow.done, flow.arrivals, flow.oldest) == (1, None, None, 0.0)


async def test_watch_of_a_broker_that_goes_away_says_so(settings: Settings, url: str) -> None:
    async with Watch(settings) as watch:
        await watch.look()
        await watch._connection.close()
        with pytest.raises(BrokerUnreachable, match="was lost"):
            await watch.look()


async def test_watch_sees_queues_though_rabbitmq_blocks_publishers(
    own_node: PrivateNode, own_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is when people look; workers cannot be asked then."""
    settings = Settings(url=SecretStr(own_url), consumers="nowhere")
    with amqp.channel(own_url) as channel:
        for name in ("emails", "emails.dead"):
            channel.queue_declare(name, durable=True)
        channel.exchange_declare("jobs.control", exchange_type="topic", durable=True)
        channel.basic_publish("", "emails", b"{}")
    async with Watch(settings, ["emails"]) as watch:
        await asyncio.to_thread(own_node.ctl, "set_vm_memory_high_watermark", "absolute", "1")
        began = time.monotonic()
        for _ in range(3):
            look = await watch.look()
            assert [(counts.queue, counts.ready) for counts in look.snapshot.queues] == [("emails", 1)]
            assert "blocks publishers" in look.missing
        assert time.monotonic() - began < AMPLE
        monkeypatch.setattr("brokerjobs.amqp.control.STEP_TIMEOUT", 1.0)
        with pytest.raises(BrokerUnreachable, match="blocks publishers"):
            await control.workers(settings, wait=0.0)
        await asyncio.to_thread(own_node.ctl, "set_vm_memory_high_watermark", "0.4")
        await eventually_async(lambda: not watch._asking.alarm.is_on)
        assert not (await watch.look()).missing.startswith("workers are not asked")
