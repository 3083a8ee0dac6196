"""One consumer for each queue of the plan."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from bench import job
from bench.adapter import Plan
from brokerjobs import Consumer

PLAN = Plan.given()
_counting: list[asyncio.Task[None]] = []
PLAIN = os.environ.get("BENCH_PLAIN") == "1"


async def _count_tasks() -> None:
    """Tell every second how many tasks this process has."""
    counted = Path(os.environ["BENCH_TALLY"], "tasks")

    async def count() -> None:
        while True:
            counted.write_text(str(len(asyncio.all_tasks())))  # noqa: ASYNC240  (in memory)
            await asyncio.sleep(1)  # noqa: TID251

    _counting.append(asyncio.create_task(count()))


def consumer_of(queue: str) -> Consumer:
    """With the one job, as the plan's style wants it."""
    # Not plain: as a user gets it, a quorum queue or, before RabbitMQ 4.3, a classic one with priorities.
    kind: Any = {"queue_type": "classic", "priorities": False} if PLAIN else {}
    consumer = Consumer(queue, prefetch=PLAN.prefetch, **kind)
    function = job.arun if PLAN.style == "native" else job.run
    consumer.job(name="run", isolate=PLAN.style == "processes")(function)
    if os.environ.get("BENCH_COUNT_TASKS"):
        consumer.on_startup(_count_tasks)
    return consumer


consumers = {f"consumer_{at}": consumer_of(queue) for at, queue in enumerate(PLAN.queues)}
globals().update(consumers)  # where `brokerjobs consume` looks for them
