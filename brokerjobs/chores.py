"""What a worker does beside its jobs while a session lasts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress

from brokerjobs.amqp import declare
from brokerjobs.amqp.connection import LOST
from brokerjobs.amqp.session import Session
from brokerjobs.errors import BrokerJobsError
from brokerjobs.lane import STALE, Lane
from brokerjobs.logs import log
from brokerjobs.settings import Settings
from brokerjobs.topology import Binding, Names
from brokerjobs.transport import AsyncPublisher
from brokerjobs.unrouted import sweep

IDLE_CHECK = 0.2  # seconds between looks at the queues in burst mode


class Chores:
    """Runs until the worker stops or its session's task is cancelled.

    Args:
        settings: how often.
        lanes: of the worker.
        stopping: set when the worker stops.
    """

    def __init__(self, settings: Settings, lanes: Sequence[Lane], stopping: asyncio.Event) -> None:
        self._settings = settings
        self._names = Names(settings.namespace)
        self._lanes = lanes
        self._stopping = stopping

    async def sweep_unrouted(
        self, session: Session, bindings: Iterable[Binding], publisher: AsyncPublisher
    ) -> None:
        """Route jobs that were published before their queue was there."""
        known = list(bindings)

        async def once() -> None:
            found = await declare.count(session.connection, self._names.unrouted)
            if found is not None and found[0] and (moved := await sweep(self._settings, known, publisher)):
                log.info("unrouted jobs routed", count=moved)

        await self._every(self._settings.sweep_interval, once)

    async def return_stale(self) -> None:
        """Give back deliveries that have waited long: another worker may be free."""

        async def once() -> None:
            for lane in self._lanes:
                await lane.return_inbox(older_than=STALE)

        await self._every(STALE / 4, once)

    async def stop_when_empty(self, session: Session, stop: Callable[[], None]) -> None:
        """Stop the worker once all its queues are empty and nothing runs."""

        async def once() -> None:
            ready = [await session.ready(lane.queue, self._names.queue(lane.queue)) for lane in self._lanes]
            if not any(ready) and all(lane.is_idle for lane in self._lanes):
                log.info("all queues are empty")
                stop()

        await self._every(IDLE_CHECK, once)

    async def _every(self, seconds: float, chore: Callable[[], Awaitable[None]]) -> None:
        """Do it now and again; a broker that does not answer now will be asked again."""
        while not self._stopping.is_set():
            try:
                await chore()
            except (*LOST, BrokerJobsError) as error:
                log.debug("chore put off", error=str(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._stopping.wait()
