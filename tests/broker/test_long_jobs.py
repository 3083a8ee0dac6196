"""A job that takes longer than RabbitMQ waits for its acknowledgement: the log says so, or there is no such wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from brokerjobs import Client, Consumer
from brokerjobs.node.private import PrivateNode
from brokerjobs.settings import Settings
from tests import amqp
from tests.conftest import StartWorker
from tests.waiting import eventually_async


@pytest.fixture
def impatient(node: PrivateNode) -> Iterator[None]:
    """RabbitMQ takes back what is not acknowledged within one second."""
    set_env = "application:set_env(rabbit, {}, {}), application:set_env(rabbit, {}, {})."
    node.ctl("eval", set_env.format("consumer_timeout", 1_000, "channel_tick_interval", 500))
    yield
    node.ctl("eval", set_env.format("consumer_timeout", 1_800_000, "channel_tick_interval", 60_000))


@pytest.mark.usefixtures("impatient")
async def test_a_job_that_is_cut_off_is_named_as_such_and_one_that_asked_for_time_is_not_cut_off(
    start_worker: StartWorker, settings: Settings, node: PrivateNode, client: Client, url: str
) -> None:
    asks = node.version >= (4, 3)
    patient = [Consumer("patient"), Consumer("old", queue_type="classic")] if asks else []
    cut = Consumer("cut")
    told, ran = asyncio.Event(), []
    with capture_logs() as lines:

        def ends() -> list[Any]:
            return [line["reason"] for line in lines if line["event"] == "session ended"]

        for consumer in *patient, cut:

            @consumer.job(name="wait")
            async def wait(queue: str) -> None:
                ran.append(queue)
                await told.wait()

        if patient:
            await start_worker(*patient)
            for consumer in patient:
                await client.asend(f"{consumer.queue}.wait", {"queue": consumer.queue})
            await eventually_async(lambda: len(ran) == len(patient))
        # As if the operator had switched the limit off, and had not.
        await start_worker(cut, settings=settings.model_copy(update={"consumer_timeout": 0}))
        await client.asend("cut.wait", {"queue": "cut"})
        await eventually_async(lambda: bool(ends()))
        told.set()

        for consumer in *patient, cut:
            await eventually_async(lambda queue=consumer.queue: amqp.ready(url, queue) == 0)  # type: ignore[misc]
        await eventually_async(
            lambda: [line["event"] for line in lines].count("job succeeded") == len(patient) + 1
        )
    assert sorted(ran) == sorted(consumer.queue for consumer in (*patient, cut)), "each ran once"
    (reason,) = ends()
    assert "of cut" in reason
    assert "a job was not acknowledged in time (consumer_timeout)" in reason
