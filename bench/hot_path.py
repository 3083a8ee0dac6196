"""What a job costs on its way, without a broker: brokerjobs and its raw client side by side, in one process.

Each path is run against the broker in memory, with the same messages. Three things are counted: CPU time, which is
compared within a run; steps of the Python interpreter and writes to the socket, which are the same on every machine.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any, ClassVar

from bench.adapter import Plan
from bench.contestants.raw_aio_pika import AioPika
from bench.memory import QUEUE, Broker, Content, Loop
from brokerjobs import Client, Consumer, logs
from brokerjobs.amqp.wire import to_pamqp
from brokerjobs.settings import Settings, load
from brokerjobs.worker import Worker

PREFETCH = 200
THREADS = 8
SMALL_TEXT, LARGE_TEXT = 140, 100_000  # characters
TIMEOUT = 60.0
URL = "amqp://guest:guest@localhost/"


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one job.

    Args:
        seconds: of CPU.
        steps: of the interpreter; 0 where they were not counted.
        writes: to the socket.
    """

    seconds: float
    steps: float
    writes: float


class Path(ABC):
    """One way of jobs through a client.

    Attributes:
        in_threads: whether threads take part, whose steps are not counted.
        text: characters in each.
        fewer: so many times fewer jobs are run than was asked for, unless steps are counted.
    """

    in_threads: ClassVar[bool] = False
    text: ClassVar[int] = SMALL_TEXT
    fewer: ClassVar[int] = 1

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.broker = Broker(self.waiting())

    def waiting(self) -> list[Content]:
        """Messages in the queue."""
        return []

    @abstractmethod
    async def begin(self) -> None:
        """Connect, so that nothing but the jobs is counted."""

    @abstractmethod
    async def go(self) -> None:
        """All jobs, until the last has its answer."""

    @abstractmethod
    async def end(self) -> None:
        """Leave nothing behind."""


def cost(path: type[Path], jobs: int, *, steps: bool = False) -> Cost:
    """Run so many jobs.

    Args:
        path: which way.
        jobs: how many.
        steps: count these; it makes all else slow, so that the seconds mean nothing.
    """
    logs.configure("error", "json")
    made = path(jobs if steps else max(10, jobs // path.fewer))
    with asyncio.Runner(loop_factory=lambda: Loop(made.broker)) as runner:
        return runner.run(_cost(made, steps=steps))


async def _cost(path: Path, *, steps: bool) -> Cost:
    async with asyncio.timeout(TIMEOUT):
        await path.begin()
        broker, counter = path.broker, _Counter(path.broker)
        gc.collect()
        writes, spent, began = broker.writes, broker.seconds, time.process_time()
        with counter.counting() if steps else nullcontext():
            await path.go()
        used = time.process_time() - began - (broker.seconds - spent)
        written = broker.writes - writes
        await path.end()
    return Cost(used / path.jobs, counter.steps / path.jobs, written / path.jobs)


class _Counter:
    """Counts the steps (bytecode instructions) of this thread, less those of the broker."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.steps = 0

    @contextmanager
    def counting(self) -> Iterator[None]:
        before = sys.gettrace()
        sys.settrace(self._call)
        try:
            yield
        finally:
            sys.settrace(before)

    def _call(self, frame: FrameType, _: str, __: object) -> Any:
        if self._broker.is_busy:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._step

    def _step(self, _: FrameType, event: str, __: object) -> Any:
        self.steps += event == "opcode"
        return self._step


def _settings() -> Settings:
    return load(url=URL, topology="none", heartbeat=60, concurrency=PREFETCH, fast_lane=True)


async def _job(user_id: int, template: str, note: str = "") -> None: ...


def _plain_job(user_id: int, template: str, note: str = "") -> None: ...


async def _large_job(user_id: int, template: str, note: str, price: float) -> None: ...


def _arguments(path: type[Path], jobs: int) -> Iterator[dict[str, Any]]:
    """Some 200 bytes each, as JSON; or a large text, and a number of the kind that needs a second look."""
    note = {"note": "x" * path.text, **({"price": 9.5} if path.text > SMALL_TEXT else {})}
    return ({"user_id": number, "template": "welcome", **note} for number in range(jobs))


class Drain(Path):
    """A worker: from the bytes of a delivery to those of its acknowledgement; the job does nothing."""

    function: ClassVar[Any] = staticmethod(_job)
    concurrency: ClassVar[int] = PREFETCH

    def waiting(self) -> list[Content]:
        self.consumer = Consumer(QUEUE, prefetch=PREFETCH)
        job = self.consumer.job(name="run")(self.function)
        messages = [job.message(**arguments) for arguments in _arguments(type(self), self.jobs)]
        return [(to_pamqp(message), message.body) for message in messages]

    async def begin(self) -> None:
        settings = _settings().model_copy(update={"concurrency": self.concurrency})
        self.worker = Worker([self.consumer], settings)
        self.running = asyncio.create_task(self.worker.run())
        await asyncio.wait(
            {self.running, consuming := asyncio.create_task(self.worker.consuming())},
            return_when=asyncio.FIRST_COMPLETED,
        )
        consuming.cancel()
        if self.running.done():
            self.running.result()

    async def go(self) -> None:
        await self.broker.drained()

    async def end(self) -> None:
        self.worker.stop()
        await self.running


class DrainThreads(Drain):
    """The same with a plain function."""

    in_threads = True
    function: ClassVar[Any] = staticmethod(_plain_job)
    concurrency: ClassVar[int] = THREADS


class RawDrain(Drain):
    """aio-pika, a callback and an acknowledgement for each message."""

    async def begin(self) -> None:
        self.client = AioPika(Plan(URL, (QUEUE,), prefetch=PREFETCH))
        await self.client.connect()
        await self.client.queues[0].consume(self._take)

    async def end(self) -> None:
        await self.client.connection.close()

    async def _take(self, message: Any) -> None:
        await self.function(**json.loads(message.body))
        await message.ack()


class RawDrainThreads(RawDrain):
    """aio-pika, each job given to a pool of threads."""

    in_threads = True
    function: ClassVar[Any] = staticmethod(_plain_job)

    async def begin(self) -> None:
        self.pool = ThreadPoolExecutor(THREADS)
        await super().begin()

    async def end(self) -> None:
        self.pool.shutdown()
        await super().end()

    async def _take(self, message: Any) -> None:
        call = partial(self.function, **json.loads(message.body))
        await asyncio.get_running_loop().run_in_executor(self.pool, call)
        await message.ack()


class LargeDrain(Drain):
    """The same with large bodies."""

    text, fewer = LARGE_TEXT, 10
    function = staticmethod(_large_job)


class RawLargeDrain(RawDrain, LargeDrain):
    """aio-pika with large bodies."""


class Publish(Path):
    """`asend_many`: from the arguments of a job to its confirm."""

    function: ClassVar[Any] = staticmethod(_job)

    async def begin(self) -> None:
        self.client = Client(settings=_settings())
        self.job = Consumer(QUEUE).job(name="run")(self.function)
        await self.client.asend_message(self.job.message(**next(_arguments(type(self), 1))))

    async def go(self) -> None:
        await self.client.asend_many(
            self.job.message(**arguments) for arguments in _arguments(type(self), self.jobs)
        )

    async def end(self) -> None:
        await self.client.aclose()


class PublishEach(Publish):
    """`asend`, one after another."""

    async def go(self) -> None:
        for arguments in _arguments(type(self), self.jobs):
            await self.client.asend_message(self.job.message(**arguments))


class RawPublish(Path):
    """aio-pika, 500 tasks."""

    async def begin(self) -> None:
        self.client = AioPika(Plan(URL, (QUEUE,)))
        await self.client.connect()

    async def go(self) -> None:
        await self.client.pipelined(_arguments(type(self), self.jobs))

    async def end(self) -> None:
        await self.client.connection.close()


class RawPublishEach(RawPublish):
    """aio-pika, one after another."""

    async def go(self) -> None:
        await self.client.each(_arguments(type(self), self.jobs))


class LargePublish(Publish):
    """The same with large bodies."""

    text, fewer = LARGE_TEXT, 10
    function = staticmethod(_large_job)


class RawLargePublish(RawPublish):
    """aio-pika with large bodies."""

    text, fewer = LARGE_TEXT, 10


# By name: brokerjobs, and what it is compared to.
PAIRS: dict[str, tuple[type[Path], type[Path]]] = {
    "drain": (Drain, RawDrain),
    "drain-def": (DrainThreads, RawDrainThreads),
    "publish": (Publish, RawPublish),
    "publish-each": (PublishEach, RawPublishEach),
    "drain-large": (LargeDrain, RawLargeDrain),
    "publish-large": (LargePublish, RawLargePublish),
}
