"""A job that takes longer than RabbitMQ waits for its acknowledgement: the log says so, or there is no such wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from brokerjobs import Client, Consumer, long_jobs
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
    start_worker: StartWorker,
    settings: Settings,
    node: PrivateNode,
    client: Client,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asks = node.version >= (4, 3)
    patient = [Consumer("patient"), Consumer("old", queue_type="classic")] if asks else []
    cut, other = Consumer("cut"), Consumer("other")
    other.job(name="quick")(lambda: ran.append("other"))
    told, ran = asyncio.Event(), []
    with capture_logs() as lines:

        def said(event: str) -> list[Any]:
            return [line for line in lines if line["event"] == event]

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
        # As if the operator had switched the limit off, and had not; or, from 4.3, as if it asked for too little.
        monkeypatch.setattr(long_jobs, "acknowledge_within", lambda *_: 1.0)
        await start_worker(cut, other, settings=settings.model_copy(update={"consumer_timeout": 0}))
        await client.asend("cut.wait", {"queue": "cut"})
        await eventually_async(lambda: bool(said("queue lost")))
        await client.asend("other.quick")
        await eventually_async(lambda: "other" in ran)
        told.set()

        for consumer in *patient, cut:
            await eventually_async(lambda queue=consumer.queue: amqp.ready(url, queue) == 0)  # type: ignore[misc]
        await eventually_async(lambda: len(said("job succeeded")) == len(patient) + 2)
    assert sorted(ran) == sorted(consumer.queue for consumer in (*patient, cut, other)), "each ran once"
    assert said("session ended") == []
    lost = said("queue lost")
    assert {(line["queue"], line["job"]) for line in lost} == {("cut", "cut.wait")}
    assert f"of cut{', which is still there' if asks else ' closed'}" in lost[0]["reason"]
    assert "a job was not acknowledged within 1s (RabbitMQ's consumer_timeout)" in lost[0]["reason"]
    assert "BROKERJOBS_CONSUMER_TIMEOUT" in lost[0]["reason"]
