"""Pause, resume, cancel and workers, on a real broker and across restarts of workers."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from brokerjobs import Consumer, Retry, chores, control, current_job
from brokerjobs.client import Client
from brokerjobs.dead_letters import DeadLetters, Filter
from brokerjobs.settings import Settings
from brokerjobs.topology import Names
from tests import amqp
from tests.conftest import StartWorker
from tests.waiting import eventually_async

SOON = 1.0  # seconds for workers to answer


async def test_paused_queue_is_left_alone_until_it_is_resumed(
    client: Client, start_worker: StartWorker, settings: Settings, url: str
) -> None:
    emails, reports = Consumer("emails"), Consumer("reports")
    ran: list[str] = []
    go_on = asyncio.Event()

    @emails.job()
    async def welcome(name: str) -> None:
        ran.append(name)
        await go_on.wait()

    @reports.job()
    async def monthly() -> None:
        ran.append("report")

    worker = await start_worker(emails, reports)
    await welcome.asend("running")
    await eventually_async(lambda: ran == ["running"])

    await control.pause(settings, "emails", "gateway maintenance")
    await eventually_async(lambda: worker._lanes[0].gate.is_paused)
    await client.asend_many([welcome.message("later"), monthly.message()])
    await eventually_async(lambda: ran == ["running", "report"])  # the other queue goes on
    await eventually_async(lambda: amqp.ready(url, "emails") == 1)
    [state] = await control.workers(settings, wait=SOON)
    assert state.queues == ("emails", "reports")
    assert "gateway maintenance" in state.paused["emails"]["operator"]
    assert [job.job for job in state.running] == ["emails.welcome"]

    go_on.set()  # what runs is finished
    await eventually_async(lambda: worker._lanes[0].is_idle)
    worker.stop()
    another = await start_worker(emails)  # also after a restart
    assert another._lanes[0].gate.is_paused
    assert amqp.ready(url, "emails") == 1

    assert await control.resume(settings, "emails") is True
    await eventually_async(lambda: ran[-1] == "later")
    assert await control.resume(settings, "emails") is False


async def test_lost_command_is_made_up_for_by_the_mark(
    start_worker: StartWorker, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chores, "MARKS_INTERVAL", 0.5)
    worker = await start_worker(Consumer("emails"))
    with amqp.channel(url) as channel:
        channel.queue_declare("emails.paused", durable=True)

    await eventually_async(lambda: worker._lanes[0].gate.is_paused)

    with amqp.channel(url) as channel:
        channel.queue_delete("emails.paused")
    await eventually_async(lambda: not worker._lanes[0].gate.is_paused)


async def test_workers_are_heard_again_after_rabbitmq_has_come_back_empty(
    start_worker: StartWorker, settings: Settings, url: str
) -> None:
    worker = await start_worker(Consumer("emails"))
    before, names = worker._session, Names()
    assert before is not None
    with amqp.channel(url) as channel:
        for exchange in names.ready, names.control:
            channel.exchange_delete(exchange)
    await before.connection.close()

    await eventually_async(lambda: worker._session not in (None, before))
    assert [state.queues for state in await control.workers(settings, wait=SOON)] == [("emails",)]


async def test_cancelled_jobs_do_not_run_wherever_they_are(
    client: Client, start_worker: StartWorker, settings: Settings, url: str
) -> None:
    emails = Consumer("emails", retry=Retry(delays=[0.25]))
    ran: list[str] = []
    told, go_on = threading.Event(), threading.Event()

    @emails.job()
    async def endless() -> None:
        ran.append("endless")
        await asyncio.Event().wait()

    @emails.job()
    def thread() -> None:
        ran.append("thread")
        told.set()
        go_on.wait(30)
        assert current_job().is_cancelled
        raise OSError

    @emails.job()
    async def welcome(name: str) -> None:
        ran.append(name)

    worker = await start_worker(emails)
    running, threaded = await endless.asend(), await thread.asend()
    waiting = await welcome.options(delay=2).asend("waiting")
    assert await control.cancel(settings, waiting.id, wait=0.0) == []
    await eventually_async(lambda: sorted(ran) == ["endless", "thread"])

    [found] = await control.cancel(settings, running.id, wait=SOON)
    assert (found.job, found.stopped) == ("emails.endless", True)
    [found] = await control.cancel(settings, threaded.id, wait=SOON)
    assert (found.job, found.stopped) == ("emails.thread", False)
    go_on.set()
    assert await control.cancel(settings, "order-7", wait=0.0) == []
    cancelled_at = int(time.time())
    worker.stop()

    amqp.publish(url, "emails.welcome", b'["queued"]', message_id="order-7", timestamp=1_700_000_000)
    await start_worker(emails)  # another one, which learns of the cancellations
    await eventually_async(lambda: amqp.ready(url, "emails.dead") == 4)
    reasons = {found.headers["brokerjobs-reason"] for found in amqp.peek(url, "emails.dead")}
    assert reasons == {"cancelled"}

    # AMQP's time of a message is in whole seconds, and in doubt it is cancelled.
    await eventually_async(lambda: int(time.time()) > cancelled_at)
    await welcome.options(id="order-7").asend("sent again")
    await eventually_async(lambda: ran[-1] == "sent again")
    await DeadLetters(settings, "emails").replay(Filter(ids=(waiting.id,)))
    await eventually_async(lambda: ran[-1] == "waiting")
    assert sorted(ran) == ["endless", "sent again", "thread", "waiting"]
