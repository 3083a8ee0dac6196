"""A worker that is told to stop ends in time whatever the broker does, and says what it gave back."""

from __future__ import annotations

import asyncio
import time

import pytest

from brokerjobs import Client, Consumer, Retry, Settings, Worker
from brokerjobs import settings as settings_module
from brokerjobs.errors import AccessRefused, TopologyMismatch
from brokerjobs.node.private import PrivateNode
from brokerjobs.topology import Names, route_to_queue
from brokerjobs.worker import Ending
from tests import amqp
from tests.management import delete_exchange, open_ports, user
from tests.waiting import eventually_async


async def begin(worker: Worker) -> asyncio.Task[Ending]:
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(60):
        await worker.consuming()
    return running


def leftovers() -> list[str]:
    """Tasks of ours that go on."""
    tasks = [repr(task.get_coro()) for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    return [task for task in tasks if "Lane" in task or "Publisher" in task or "Worker" in task]


async def test_a_job_whose_retry_cannot_be_confirmed_is_given_back_and_counted(
    client: Client, settings: Settings, url: str, node: PrivateNode, vhost: str
) -> None:
    emails = Consumer("emails", retry=Retry(delays=[1.0]))
    ran = asyncio.Event()

    @emails.job()
    async def welcome() -> None:
        ran.set()
        raise OSError("mail server is away")

    patient = settings.model_copy(update={"publish_timeout": 1.0, "drain_timeout": 1.0})
    worker = Worker([emails], patient)
    running = await begin(worker)
    delete_exchange(node, vhost, route_to_queue(Names(), "emails", 1.0)[0])
    await welcome.asend()
    await asyncio.wait_for(ran.wait(), 20)
    worker.stop()

    began = time.monotonic()
    assert (await running).returned == 1
    assert time.monotonic() - began < 10
    assert leftovers() == []
    await eventually_async(lambda: amqp.ready(url, "emails") == 1)


async def test_a_message_nobody_can_decode_is_settled_before_the_end(
    settings: Settings, url: str, node: PrivateNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RecursionError("too deep")

    monkeypatch.setattr("brokerjobs.amqp.delivery.decode", broken)
    worker = Worker([Consumer("emails")], settings)
    running = await begin(worker)
    amqp.publish(url, "emails.welcome", b"{}")
    await eventually_async(lambda: amqp.ready(url, "emails") == 0)
    worker.stop()

    assert (await running).returned == 0
    (dead,) = amqp.peek(url, "emails.dead")
    assert dead.headers["brokerjobs-reason"] == "undecodable"
    assert "too deep" in dead.headers["brokerjobs-error"]


async def test_a_worker_begins_during_an_alarm_and_ends_in_time_while_its_broker_is_frozen_or_gone(
    own_node: PrivateNode, own_url: str
) -> None:
    settings = settings_module.load(url=own_url, drain_timeout=0.5, publish_timeout=1.0)
    consumers = [Consumer(name) for name in ("one", "two", "three")]
    started, finish = asyncio.Event(), asyncio.Event()

    @consumers[0].job()
    async def job() -> None:
        started.set()
        await finish.wait()

    async with Client(settings=settings) as client:
        await Worker(consumers, settings, burst=True).run()  # declares the queues
        await client.asend("one.job")
    own_node.ctl("set_vm_memory_high_watermark", "absolute", "1")  # whoever publishes is blocked
    worker = Worker(consumers, settings)
    running = await begin(worker)
    await asyncio.wait_for(started.wait(), 20)
    assert worker.health().begun  # which systemd is told
    own_node.ctl("set_vm_memory_high_watermark", "0.6")
    own_node.pause()
    worker.stop()

    began = time.monotonic()
    assert (await running).returned == 1
    assert time.monotonic() - began < 10.5
    assert leftovers() == []
    assert open_ports(own_node) == []

    own_node.resume()
    started.clear()
    worker = Worker(consumers, settings.model_copy(update={"drain_timeout": 30.0}))
    running = await begin(worker)
    await asyncio.wait_for(started.wait(), 45)  # the job that was given back
    own_node.kill()
    await eventually_async(lambda: not worker._connected.is_set())
    worker.stop()  # while it tries to connect
    finish.set()  # and while the job runs

    assert (
        await asyncio.wait_for(running, 20)
    ).returned == 0  # it ended; that nobody could be told is in the log
    assert leftovers() == []


@pytest.mark.parametrize("topology", ["declare", "check", "none"])
async def test_a_user_without_permissions_is_told_at_once(
    url: str, node: PrivateNode, vhost: str, topology: str
) -> None:
    with user(node, vhost, f"nobody-{vhost}") as nobody:
        worker = Worker([Consumer("emails")], settings_module.load(url=nobody, topology=topology))
        began = time.monotonic()
        # The versions differ in what a user without permissions may see.
        with pytest.raises((AccessRefused, TopologyMismatch), match=f"nobody-{vhost}|missing in RabbitMQ"):
            await worker.run()
        assert time.monotonic() - began < 10
