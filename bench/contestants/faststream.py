"""FastStream on RabbitMQ."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import ClassVar

import anyio.to_thread
import uvloop
from faststream import FastStream
from faststream.rabbit import Channel, RabbitBroker, RabbitQueue

from bench import job
from bench.adapter import Adapter, Arguments, How, Style

WINDOW = 500


class FastStreamRabbit(Adapter):
    """Acknowledged when a handler has ended, as it comes."""

    title = "FastStream"
    package = "faststream"
    settings = "uvloop; prefetch 200; no log line a message; pipelined: 500 tasks"
    lacks = (
        "no retries with a wait, no delays, timeouts or dead letters of its own: a failed message is rejected"
    )
    sends: ClassVar[tuple[How, ...]] = ("each", "pipelined")
    styles: ClassVar[tuple[Style, ...]] = ("native", "threads", "processes")
    forked = True
    coroutines = True

    def _broker(self) -> RabbitBroker:
        channel = Channel(prefetch_count=self.plan.prefetch)
        return RabbitBroker(self.plan.url, default_channel=channel, logger=None)

    def open(self) -> None:
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.broker = self._broker()
        self.runner.run(self._connect())

    async def _connect(self) -> None:
        await self.broker.start()
        for name in self.plan.queues:
            await self.broker.declare_queue(RabbitQueue(name, durable=True))

    def send(self, how: How, jobs: Iterator[Arguments]) -> None:
        self.runner.run(self._pipelined(jobs) if how == "pipelined" else self._each(jobs))

    async def _each(self, jobs: Iterator[Arguments]) -> None:
        for turn, arguments in enumerate(jobs):
            await self.broker.publish(arguments, self.queue_at(turn), persist=True)

    async def _pipelined(self, jobs: Iterator[Arguments]) -> None:
        window = asyncio.Semaphore(WINDOW)
        async with asyncio.TaskGroup() as group:
            for turn, arguments in enumerate(jobs):
                await window.acquire()
                publish = self.broker.publish(arguments, self.queue_at(turn), persist=True)
                group.create_task(publish).add_done_callback(lambda _: window.release())

    def close(self) -> None:
        self.runner.run(self._disconnect())
        self.runner.close()

    async def _disconnect(self) -> None:
        await self.broker.stop()

    def work(self) -> None:
        uvloop.run(self._run())

    async def _run(self) -> None:
        threads = 1 if self.plan.style == "processes" else self.plan.at_once
        anyio.to_thread.current_default_thread_limiter().total_tokens = threads
        broker = self._broker()
        for name in self.plan.queues:
            handler = job.arun if self.plan.style == "native" else job.run
            broker.subscriber(RabbitQueue(name, durable=True))(handler)
        await FastStream(broker, logger=None).run(log_level=logging.WARNING)
