"""arq, on Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import ClassVar

import uvloop
from arq import create_pool, func
from arq.connections import RedisSettings
from arq.worker import Worker

from bench import job
from bench.adapter import Adapter, Arguments, How, Style

WINDOW = 100


async def run(context: object, **arguments) -> None:
    """The job, less the context that arq gives."""
    await job.arun(**arguments)


class Arq(Adapter):
    """Without results, and looking for jobs a hundred times a second."""

    title = "arq (Redis)"
    package = "arq"
    settings = "uvloop; 200 jobs at once, poll_delay 10 ms; no results; pipelined: 100 tasks"
    lacks = "Redis as it comes may lose its last minutes in a crash"
    sends: ClassVar[tuple[How, ...]] = ("each", "pipelined")
    styles: ClassVar[tuple[Style, ...]] = ("native",)
    forked = True
    coroutines = True
    on = "redis"

    def open(self) -> None:
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.pool = self.runner.run(create_pool(RedisSettings.from_dsn(self.plan.redis)))

    def send(self, how: How, jobs: Iterator[Arguments]) -> None:
        self.runner.run(self._pipelined(jobs) if how == "pipelined" else self._each(jobs))

    async def _each(self, jobs: Iterator[Arguments]) -> None:
        for turn, arguments in enumerate(jobs):
            await self.pool.enqueue_job("run", _queue_name=self.queue_at(turn), **arguments)

    async def _pipelined(self, jobs: Iterator[Arguments]) -> None:
        window = asyncio.Semaphore(WINDOW)
        async with asyncio.TaskGroup() as group:
            for turn, arguments in enumerate(jobs):
                await window.acquire()
                sending = self.pool.enqueue_job("run", _queue_name=self.queue_at(turn), **arguments)
                group.create_task(sending).add_done_callback(lambda _: window.release())

    def work(self) -> None:
        uvloop.install()
        asyncio.set_event_loop(asyncio.new_event_loop())
        worker = Worker(
            functions=[func(run, name="run", keep_result=0)],
            queue_name=self.plan.queues[0],
            redis_settings=RedisSettings.from_dsn(self.plan.redis),
            max_jobs=self.plan.at_once,
            poll_delay=0.01,
            keep_result=0,
        )
        worker.run()
