"""aio-pika without a framework, on uvloop: what brokerjobs itself stands on."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from typing import Any, ClassVar

import aio_pika
import uvloop

from bench import job
from bench.adapter import Adapter, Arguments, How, Style, declare_ours

WINDOW = 500


class AioPika(Adapter):
    """A callback for each message, a task for each callback."""

    title = "raw aio-pika"
    package = "aio-pika"
    settings = "uvloop; ack each; pipelined: 500 tasks"
    lacks = "no retries, timeouts, delays or dead letters"
    sends: ClassVar[tuple[How, ...]] = ("each", "pipelined")
    styles: ClassVar[tuple[Style, ...]] = ("native",)
    forked = True
    coroutines = True
    key: ClassVar[str] = "{}"
    priority: ClassVar[int | None] = None

    def open(self) -> None:
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.runner.run(self.connect())

    async def connect(self) -> None:
        self.connection = await aio_pika.connect_robust(self.plan.url)
        self.channel = await self.connection.channel()
        await self.channel.set_qos(prefetch_count=self.plan.prefetch)
        await self._declare()

    async def _declare(self) -> None:
        self.queues = [await self.channel.declare_queue(name, durable=True) for name in self.plan.queues]
        self.exchange = self.channel.default_exchange

    def send(self, how: How, jobs: Iterator[Arguments]) -> None:
        self.runner.run(self.pipelined(jobs) if how == "pipelined" else self.each(jobs))

    async def each(self, jobs: Iterator[Arguments]) -> None:
        for turn, arguments in enumerate(jobs):
            await self._publish(self.queue_at(turn), arguments)

    async def pipelined(self, jobs: Iterator[Arguments]) -> None:
        window = asyncio.Semaphore(WINDOW)
        async with asyncio.TaskGroup() as group:
            for turn, arguments in enumerate(jobs):
                await window.acquire()
                task = group.create_task(self._publish(self.queue_at(turn), arguments))
                task.add_done_callback(lambda _: window.release())

    async def _publish(self, queue: str, arguments: Arguments) -> None:
        message = aio_pika.Message(
            json.dumps(arguments).encode(),
            content_type="application/json",
            priority=self.priority,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        await self.exchange.publish(message, self.key.format(queue))

    def close(self) -> None:
        self.runner.run(self._close())
        self.runner.close()

    async def _close(self) -> None:
        await self.connection.close()

    def work(self) -> None:
        self.open()
        self.runner.run(self._consume())
        self.close()

    async def _consume(self) -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        for queue in self.queues:
            await queue.consume(self._take)
        await stop.wait()

    @staticmethod
    async def _take(message: Any) -> None:
        await job.arun(**json.loads(message.body))
        await message.ack()


class AioPikaOurs(AioPika):
    """Through the exchange of brokerjobs into its kind of queue: tells how much of a difference is RabbitMQ's."""

    title = "raw aio-pika, our queue"
    settings = "as raw aio-pika, to the exchange and the queue of the first row"
    sends: ClassVar[tuple[How, ...]] = ("pipelined",)
    styles: ClassVar[tuple[Style, ...]] = ()
    key = "{}.run"
    priority = 4

    def open(self) -> None:
        declare_ours(self.plan.url)
        super().open()

    async def _declare(self) -> None:
        self.exchange = await self.channel.get_exchange("jobs")
