"""Publish, watch, and hold the counts of all sources against each other."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

from brokerjobs.client import Client
from brokerjobs.demo.display import Display, Picture, Row
from brokerjobs.demo.holdings import Holdings
from brokerjobs.demo.ledger import Event, Ledger
from brokerjobs.demo.plan import QUEUES, ByName
from brokerjobs.demo.stage import DemoFailed, Stage
from brokerjobs.demo.summary import Evidence, Summary, check
from brokerjobs.durations import seconds

START_TIMEOUT = 60.0  # seconds; the worker declares all queues meanwhile
STALL_TIMEOUT = 60.0  # seconds without any outcome after which what is unfinished stays so
SETTLE_TIMEOUT = 10.0  # seconds from the last outcome to its ack
POLL = 0.1  # seconds between looks at the log


class Performance:
    """One demo on a stage.

    Args:
        stage: all that runs.
        display: what the person sees.
        seed: for the summary.
    """

    def __init__(self, stage: Stage, display: Display, seed: int) -> None:
        self._stage = stage
        self._display = display
        self._seed = seed
        self._ledger = Ledger()
        self._retries: list[Event] = []
        self._deaths: list[Event] = []
        self._began = 0.0
        self._drawn = 0.0

    async def play(self) -> Summary:
        """Publish everything, watch until every job has ended, compare.

        Raises:
            DemoFailed: the worker ended.
            PublishRefused, PublishUnknown, ConnectionLost: RabbitMQ did not do its part.
        """
        await self._wait_for_worker()
        self._began = time.time()
        publishing = asyncio.create_task(self._publish())
        try:
            await self._watch(publishing)
        finally:
            publishing.cancel()
        duration = time.time() - self._began
        evidence = await self._evidence()
        return Summary(
            seed=self._seed,
            rabbitmq=self._stage.namespace.rabbitmq,
            by_demo=self._stage.plan.jobs,
            ledger=self._ledger,
            checks=list(check(self._stage.plan, evidence)),
            duration=duration,
        )

    @property
    def refused_mail(self) -> str | None:
        """The id of the mail that the server refused for good."""
        refused = [
            event.id for event in self._deaths if event.reason == "rejected" and event.job == "emails.welcome"
        ]
        return refused[0] if refused else None

    async def stay(self) -> None:
        """Let the refused mail through, and tell what becomes of what the person replays or publishes, for ever.

        Raises:
            DemoFailed: the worker ended.
        """
        self._stage.mailbox.mend()
        while True:
            for event in self._new_events():
                self._display.tell(event)
            await self._pause()

    async def _wait_for_worker(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not any(line.get("event") == "consuming" for _, line in self._stage.worker.new_lines()):
            if time.monotonic() > deadline:
                raise DemoFailed(f"the worker was not ready after {START_TIMEOUT:g} s")
            await self._pause()

    async def _publish(self) -> None:
        plan = self._stage.plan
        with Client(settings=self._stage.settings) as client:
            for handle in await asyncio.to_thread(client.send_many, plan.messages):
                self._ledger.publish(handle.id, handle.job)
            for one in plan.by_name:
                handle = await asyncio.to_thread(partial(client.send, one.job, one.arguments, **one.options))
                self._ledger.publish(handle.id, handle.job, _due(one))

    async def _watch(self, publishing: asyncio.Task[None]) -> None:
        latest = time.monotonic()
        while time.monotonic() - latest < STALL_TIMEOUT:
            for event in self._new_events():
                latest = time.monotonic()
                if event.kind in ("retried", "trouble"):
                    self._retries.append(event)
                elif event.kind == "dead":
                    self._deaths.append(event)
            await self._draw()
            if publishing.done():
                publishing.result()
                if not self._ledger.unfinished:
                    break
            await self._pause()
        await self._draw(at_once=True)

    def _new_events(self) -> Iterator[Event]:
        for at, line in self._stage.worker.new_lines():
            event = self._ledger.read(line, at)
            if event is not None:
                yield event

    async def _draw(self, *, at_once: bool = False) -> None:
        now = time.time()
        if now - self._drawn < self._display.interval and not at_once:
            return
        self._drawn = now
        holdings, metrics = await self._stage.namespace.count(), await self._metrics()
        ledger = self._ledger
        rows = [
            Row(
                queue=queue,
                ready=holdings.ready[queue],
                running=metrics["brokerjobs_jobs_in_progress", queue],
                waiting=ledger.waiting(queue, now),
                done=len(ledger.ids(queue, "done")),
                retried=sum(count for (of, _), count in ledger.retries.items() if of == queue),
                dead=holdings.dead[queue],
            )
            for queue in QUEUES
        ]
        self._display.show(
            Picture(
                elapsed=now - self._began,
                published=len(ledger.entries),
                rows=rows,
                delayed=holdings.delayed,
                unrouted=holdings.unrouted,
                began=self._began,
                retries=self._retries,
                deaths=self._deaths,
            )
        )

    async def _evidence(self) -> Evidence:
        stage = self._stage
        holdings = await self._settled()
        return Evidence(
            ledger=self._ledger,
            holdings=holdings,
            dead_ids={queue: await stage.namespace.dead_ids(queue) for queue in QUEUES},
            metrics=await self._metrics(),
            message_ids=stage.mailbox.message_ids,
            order_states=await asyncio.to_thread(stage.order_states),
        )

    async def _settled(self) -> Holdings:
        """What the queues hold once the last outcomes, which are logged first, are settled too."""
        deadline = time.monotonic() + SETTLE_TIMEOUT
        while True:
            holdings = await self._stage.namespace.count()
            dead = sum(holdings.dead.values())
            if (holdings.is_quiet and dead == self._ledger.dead.total()) or time.monotonic() > deadline:
                return holdings
            await self._pause()

    async def _metrics(self) -> Counter[tuple[str, str]]:
        with suppress(OSError):
            return await asyncio.to_thread(self._stage.worker.metrics)
        return Counter()

    async def _pause(self) -> None:
        worker = self._stage.worker
        if worker.has_ended:
            worker.new_lines()
            said = "\n".join(worker.last_words) or "nothing"
            raise DemoFailed(f"the worker ended; it said last:\n{said}")
        await asyncio.sleep(POLL)  # noqa: TID251  (a log file sends no events)


def _due(one: ByName) -> float:
    delay = one.options.get("delay")
    return time.time() + seconds(delay) if delay is not None else 0.0
