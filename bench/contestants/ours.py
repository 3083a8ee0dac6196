"""brokerjobs, as a user gets it: arguments validated, metrics counted, manual acks, every send confirmed."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import ClassVar

import uvloop

from bench.adapter import Adapter, Arguments, How, Plan, Style, declare_ours
from brokerjobs import Client
from brokerjobs.errors import UnknownQueue
from brokerjobs.message import Message

NOBODY = "bench-nobody.run"  # to ask for it opens the connection


class Ours(Adapter):
    """Sent by `send` and `send_many`."""

    title = "brokerjobs"
    package = "brokerjobs"
    settings = (
        "defaults but for concurrency and --log-level warning: a quorum queue, before RabbitMQ 4.3 a classic one, "
        "with priorities"
    )
    sends: ClassVar[tuple[How, ...]] = ("each", "pipelined")
    styles: ClassVar[tuple[Style, ...]] = ("native", "threads", "processes")
    coroutines = True
    environment: ClassVar[dict[str, str]] = {
        "BROKERJOBS_LOG_LEVEL": "warning",
        "BROKERJOBS_METRICS_PORT": "none",
    }

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        os.environ.update(BROKERJOBS_URL=plan.url, BROKERJOBS_CONSUMERS="bench.consumers", **self.environment)
        self.client = Client()

    def open(self) -> None:
        declare_ours(self.plan.url)
        with suppress(UnknownQueue):
            self.client.send(NOBODY)

    def send(self, how: How, jobs: Iterator[Arguments]) -> None:
        if how == "pipelined":
            self.client.send_many(self.messages(jobs))
        else:
            for message in self.messages(jobs):
                self.client.send_message(message)

    def messages(self, jobs: Iterator[Arguments]) -> Iterator[Message]:
        """As `job.message(…)` makes them, which validates the arguments."""
        from bench.consumers.planned import consumers

        declared = [next(iter(consumer.jobs.values())) for consumer in consumers.values()]
        for turn, arguments in enumerate(jobs):
            yield declared[turn % len(declared)].message(**arguments)

    def close(self) -> None:
        self.client.close()

    def work(self) -> None:
        plan = self.plan
        isolated = plan.style == "processes"  # its children run the jobs, one each
        at_once, processes = (plan.processes, 1) if isolated else (plan.at_once, plan.processes)
        options = ["-c", str(at_once), "-p", str(processes), "--log-format", "json"]
        os.execv(sys.executable, [sys.executable, "-m", "brokerjobs", "consume", *plan.queues, *options])


class OursAsync(Ours):
    """Sent by `asend` and `asend_many`."""

    title = "brokerjobs, asend"
    settings = "uvloop, as raw aio-pika; asend and asend_many"
    styles: ClassVar[tuple[Style, ...]] = ()

    def open(self) -> None:
        super().open()
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        with suppress(UnknownQueue):
            self.runner.run(self.client.asend(NOBODY))

    def send(self, how: How, jobs: Iterator[Arguments]) -> None:
        if how == "pipelined":
            self.runner.run(self._pipelined(jobs))
        else:
            self.runner.run(self._each(jobs))

    async def _pipelined(self, jobs: Iterator[Arguments]) -> None:
        await self.client.asend_many(self.messages(jobs))

    async def _each(self, jobs: Iterator[Arguments]) -> None:
        for message in self.messages(jobs):
            await self.client.asend_message(message)

    def close(self) -> None:
        self.runner.run(self.client.aclose())
        self.runner.close()


class OursPlain(Ours):
    """From a queue without priorities."""

    title = "brokerjobs, plain queue"
    settings = "Consumer(…, queue_type='classic', priorities=False), as the peers' queues are"
    sends: ClassVar[tuple[How, ...]] = ("pipelined",)
    styles: ClassVar[tuple[Style, ...]] = ("native",)
    only_drains = True
    environment: ClassVar[dict[str, str]] = {**Ours.environment, "BENCH_PLAIN": "1"}


class OursTelling(Ours):
    """With the default log level."""

    title = "brokerjobs, a log line a job"
    settings = "the default log level: one line of JSON for each job, into a file"
    sends: ClassVar[tuple[How, ...]] = ("pipelined",)
    styles: ClassVar[tuple[Style, ...]] = ("native",)
    only_drains = True
    environment: ClassVar[dict[str, str]] = {"BROKERJOBS_METRICS_PORT": "0"}


class OursOrdinary(Ours):
    """Through the client library, so that what the fast lane gains is seen."""

    title = "brokerjobs, fast_lane=false"
    settings = "deliveries and acknowledgements through aio-pika"
    sends: ClassVar[tuple[How, ...]] = ("pipelined",)
    styles: ClassVar[tuple[Style, ...]] = ("native",)
    only_drains = True
    environment: ClassVar[dict[str, str]] = {**Ours.environment, "BROKERJOBS_FAST_LANE": "false"}


class OursAsyncOrdinary(OursAsync):
    """The asyncio publisher through the client library."""

    title = "brokerjobs, asend, fast_lane=false"
    settings = "sends and confirms through aio-pika"
    environment: ClassVar[dict[str, str]] = OursOrdinary.environment
