"""What a worker does beside its jobs while a session lasts."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from brokerjobs.amqp import declare
from brokerjobs.amqp.connection import LOST, ConnectionLost
from brokerjobs.amqp.session import Session
from brokerjobs.errors import BrokerJobsError
from brokerjobs.gate import BROKER
from brokerjobs.lane import STALE, Lane
from brokerjobs.logs import log
from brokerjobs.queue_looks import QueueLooks
from brokerjobs.settings import Settings
from brokerjobs.topology import Binding, Names
from brokerjobs.transport import AsyncPublisher
from brokerjobs.unrouted import sweep
from brokerjobs.worker_state import OPERATOR

IDLE_CHECK = 0.2  # seconds between looks at the queues in burst mode
WATCH_INTERVAL = 15.0  # seconds between looks whether what waits is delivered
STRIKES = 2  # such looks in a row without any delivery end the session
MARKS_INTERVAL = (
    300.0  # seconds between looks for marks; each that is not there is an error in RabbitMQ's log
)
LOOK_INTERVAL = 15.0  # seconds between looks at the queues, for metrics
STALLED = "messages wait, and RabbitMQ delivers none"
SHORT_LIFE = 5.0  # seconds; a queue that is lost again so soon may be so the next time as well
LONGEST_REST = 30.0  # seconds until it is consumed again


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
        """Stop the worker once all its queues are empty and nothing runs; those that an operator paused do not count.

        What a job left behind while the queues were asked one after another would be overlooked, so nothing may have
        come or ended meanwhile.
        """

        async def once() -> None:
            before = [(lane.is_idle, lane.changes) for lane in self._lanes]
            lanes = [lane for lane in self._lanes if OPERATOR not in lane.gate.pauses]
            ready = [await session.ready(lane.queue, self._names.queue(lane.queue)) for lane in lanes]
            idle = [(True, lane.changes) for lane in self._lanes]
            if before == idle and not any(ready):
                log.info("all queues are empty")
                stop()

        await self._every(IDLE_CHECK, once)

    async def follow_gate(
        self, session: Session, lane: Lane, consume: Callable[[Lane], Awaitable[None]]
    ) -> None:
        """Consume the queue while nobody has paused it, and anew when it was lost.

        Args:
            session: that lasts.
            lane: of the queue.
            consume: declares the queue, and consumes it unless it is paused.
        """
        clock = asyncio.get_running_loop().time
        began, short_lives = clock(), 0
        while not session.has_ended:
            lane.gate.changed.clear()
            if BROKER in lane.gate.pauses:
                short_lives = short_lives + 1 if clock() - began < SHORT_LIFE else 0
                await self._pause(
                    min(LONGEST_REST, 0.1 * 2.0 ** min(short_lives, 10)) * random.uniform(0.5, 1.0)
                )
                await self._regain(lane, consume)
                began = clock()
            with suppress(ConnectionLost):  # which the gate tells of, or the session
                if lane.gate.is_shut and session.consumes(lane.queue):
                    await session.cancel(lane.queue)
                    await lane.return_inbox()
                elif not lane.gate.is_shut and not session.consumes(lane.queue):
                    await session.renew(lane.queue)
            await lane.gate.changed.wait()

    async def _regain(self, lane: Lane, consume: Callable[[Lane], Awaitable[None]]) -> None:
        """Consume a lost queue again, however long that takes."""

        def say(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            lane.gate.pause(BROKER, str(error))
            log.warning("queue not consumed", queue=lane.queue, error=str(error),
                        next_try_in=round(state.upcoming_sleep, 1))  # fmt: skip

        async for attempt in AsyncRetrying(
            wait=wait_random_exponential(multiplier=0.2, max=LONGEST_REST),
            retry=retry_if_exception_type((*LOST, BrokerJobsError)),
            before_sleep=say,
        ):
            with attempt:
                await consume(lane)
        lane.gate.resume(BROKER)

    async def follow_marks(self, look: Callable[[], Awaitable[None]]) -> None:
        """Look for marks of paused queues now and then: a command may have got lost."""
        await self._every(MARKS_INTERVAL, look)

    async def watch(self, session: Session) -> None:
        """End a session that is connected and gets nothing, though messages wait and nothing is held.

        Where others consume the queue too, it may be that RabbitMQ delivers to one of them alone (a single active
        consumer) until that one ends: then a new consumer must do.
        """
        strikes: Counter[Lane] = Counter()
        seen: dict[Lane, int] = {}
        told: set[Lane] = set()

        async def once() -> None:
            for lane in self._lanes:
                waiting = 0
                if not lane.gate.is_paused and not lane.held and seen.get(lane) == lane.changes:
                    waiting = await session.ready(lane.queue, self._names.queue(lane.queue))
                is_idle = waiting > 0 and not lane.held and seen.get(lane) == lane.changes
                strikes[lane] = strikes[lane] + 1 if is_idle else 0
                seen[lane] = lane.changes
                if strikes[lane] < STRIKES:
                    continue
                strikes[lane] = 0
                if not await self._others_consume(session, lane):
                    log.error("not consuming", queue=lane.queue, ready=waiting)
                    session.end(STALLED)
                    return
                if lane not in told:
                    log.warning("not consuming", queue=lane.queue, ready=waiting,
                                hint="others do: has the queue a single active consumer?")  # fmt: skip
                told.add(lane)
                await session.renew(lane.queue)

        await self._every(WATCH_INTERVAL, once)

    async def _others_consume(self, session: Session, lane: Lane) -> bool:
        """Whether the queue has consumers beside ours, which this ends: quorum queues count no standby."""
        await session.cancel(lane.queue)
        try:
            found = await declare.count(session.connection, self._names.queue(lane.queue))
        except (*LOST, BrokerJobsError):
            return False
        return found is not None and found[1] > 0

    async def look_at_queues(self, session: Session, looks: QueueLooks) -> None:
        """Ask RabbitMQ now and again for what metrics tell of the queues, as long as it can be asked."""
        try:
            await self._every(LOOK_INTERVAL, lambda: looks.look(session))
        finally:
            looks.forget()

    async def _every(self, seconds: float, chore: Callable[[], Awaitable[None]]) -> None:
        """Do it now and again; a broker that does not answer now will be asked again."""
        while not self._stopping.is_set():
            try:
                await chore()
            except (*LOST, BrokerJobsError) as error:
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise asyncio.CancelledError from None  # told to end while the connection ended as well
                log.debug("chore put off", error=str(error))
            await self._pause(seconds)

    async def _pause(self, seconds: float) -> None:
        """Wait, unless the worker stops meanwhile."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
