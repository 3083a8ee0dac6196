"""Taskiq on taskiq-aio-pika."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import ClassVar

import uvloop
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue, QueueType

from bench import job
from bench.adapter import Adapter, Arguments, How, Plan, Style

WINDOW = 500


def broker() -> AioPikaBroker:
    """Its broker, with the one task."""
    plan = Plan.given()
    made = AioPikaBroker(plan.url, qos=plan.prefetch, exchange=Exchange(name="bench-taskiq"))
    made = made.with_queues(*(Queue(name=name, type=QueueType.CLASSIC) for name in plan.queues))
    made.register_task(job.arun if plan.style == "native" else job.run, task_name="bench:run")
    return made


class Taskiq(Adapter):
    """Acknowledged when a task has ended, as it comes."""

    title = "Taskiq"
    package = "taskiq"
    settings = "taskiq-aio-pika, uvloop; qos 200, 200 tasks at once; pipelined: 500 tasks"
    lacks = "a failed task is acknowledged unless a middleware sends it again; delays wait behind longer ones"
    sends: ClassVar[tuple[How, ...]] = ("each", "pipelined")
    styles: ClassVar[tuple[Style, ...]] = ("native", "threads", "processes")
    coroutines = True

    def open(self) -> None:
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.broker = broker()
        self.task = self.broker.find_task("bench:run")
        self.runner.run(self.broker.startup())

    def send(self, how: How, jobs: Iterator[Arguments]) -> None:
        self.runner.run(self._pipelined(jobs) if how == "pipelined" else self._each(jobs))

    async def _each(self, jobs: Iterator[Arguments]) -> None:
        for turn, arguments in enumerate(jobs):
            await self._kick(turn, arguments)

    async def _pipelined(self, jobs: Iterator[Arguments]) -> None:
        window = asyncio.Semaphore(WINDOW)
        async with asyncio.TaskGroup() as group:
            for turn, arguments in enumerate(jobs):
                await window.acquire()
                task = group.create_task(self._kick(turn, arguments))
                task.add_done_callback(lambda _: window.release())

    async def _kick(self, turn: int, arguments: Arguments) -> None:
        if len(self.plan.queues) > 1:
            await self.task.kicker().with_labels(queue_name=self.queue_at(turn)).kiq(**arguments)
        else:
            await self.task.kiq(**arguments)

    def close(self) -> None:
        self.runner.run(self.broker.shutdown())
        self.runner.close()

    def work(self) -> None:
        plan = self.plan
        threads = 1 if plan.style == "processes" else plan.at_once
        os.execvp(
            "taskiq",
            ["taskiq", "worker", "bench.contestants.taskiq:broker", "--workers", str(plan.processes),
             "--max-async-tasks", str(plan.at_once), "--max-threadpool-threads", str(threads),
             "--log-level", "WARNING"],
        )  # fmt: skip
