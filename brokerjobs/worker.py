"""The worker: connects, consumes its queues, runs their jobs, and drains when told to stop.

    start-up hooks ► session (connect ► topology ► consume ► until it ends) ► session ► … ► drain ► shut-down hooks

Sessions end and are replaced with backoff; jobs go on meanwhile. Once it has been connected, a worker never gives
up: a broker that is away comes back. Before that, a configuration error ends it at once, and an unreachable broker
after `start_timeout`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_delay,
    stop_never,
    wait_random_exponential,
)

from brokerjobs import __version__, cautions, long_jobs, provision
from brokerjobs.amqp.connection import LOST, ConnectionLost
from brokerjobs.amqp.guard import Streak
from brokerjobs.amqp.publisher import Publisher
from brokerjobs.amqp.session import Loss, Session
from brokerjobs.amqp.settlement import Settlement
from brokerjobs.chores import STALLED, Chores
from brokerjobs.connection_record import ConnectionRecord
from brokerjobs.consumer import Consumer
from brokerjobs.errors import BrokerJobsError, BrokerUnreachable, ConfigurationError, NotConsuming
from brokerjobs.executor import Executor, Threads
from brokerjobs.gate import BROKER
from brokerjobs.health import WorkerHealth
from brokerjobs.isolation import processes_for
from brokerjobs.job import Hook
from brokerjobs.lane import Lane, Slots
from brokerjobs.logs import log
from brokerjobs.loop_lag import LoopLag
from brokerjobs.metrics import CONSUMER, PUBLISHER, Metrics
from brokerjobs.queue_looks import QueueLooks
from brokerjobs.remote import Remote
from brokerjobs.senders import Senders
from brokerjobs.settings import Settings
from brokerjobs.strict_order import StrictOrder
from brokerjobs.topology import Names
from brokerjobs.tracing import Tracing
from brokerjobs.transport import Publication

START_TIMEOUT = 30.0  # seconds
# What ends a session this soon, in seconds, may end the next as well: a queue that is deleted again and again.
SHORT_SESSION = 5.0
LONGEST_PAUSE = 10.0  # seconds between two tries: RabbitMQ is back for that long before the last worker is
STALLED_SESSIONS = 3  # then a restart by whoever runs the worker may help more than another session
CHORES_TIMEOUT = 5.0  # seconds to end with their session
GIVE_BACK_TIMEOUT = 2.0  # seconds after a drain: a frozen broker must not hold up the ending


@dataclass(frozen=True, slots=True)
class Ending:
    """How a worker ended.

    Args:
        returned: jobs that outran the drain and were given back to their queues.
    """

    returned: int = 0


class Worker:
    """Consumes the queues of some consumers until `stop`.

    Args:
        consumers: in strict mode the first has the highest priority.
        settings: everything adjustable.
        strict: queues share the slots, and a queue runs only while all before it are empty; otherwise each
            queue has its own slots, so a slow one cannot hold up the others.
        burst: end when all queues are empty and nothing runs; jobs that wait for a retry are not waited for.
        start_timeout: seconds to wait for a broker that has never answered.
        metrics: where to count.
    """

    def __init__(
        self,
        consumers: Sequence[Consumer],
        settings: Settings,
        *,
        strict: bool = False,
        burst: bool = False,
        start_timeout: float = START_TIMEOUT,
        metrics: Metrics | None = None,
    ) -> None:
        self._consumers = consumers
        self._settings = settings
        self._names = Names(settings.namespace)
        self._strict = strict
        self._burst = burst
        self._start_timeout = start_timeout
        self._metrics = metrics or Metrics()
        self._stopping = asyncio.Event()
        self._connected = asyncio.Event()
        self._was_connected = False
        self._lanes: list[Lane] = []
        self._order: StrictOrder | None = None
        self._lag = LoopLag()
        self._session: Session | None = None
        self._trouble = ""

    @property
    def metrics(self) -> Metrics:
        return self._metrics

    def health(self) -> WorkerHealth:
        """How it does; may be asked from any thread, also while its event loop is blocked."""
        session = self._session
        is_connected = self._connected.is_set() and session is not None and not session.has_ended
        return WorkerHealth(
            self._settings.address,
            [
                lane.health(consuming=is_connected and session is not None and session.consumes(lane.queue))
                for lane in self._lanes
            ],
            begun=self._was_connected,
            connected=is_connected,
            trouble=self._trouble,
            blocked=is_connected and self._publisher.is_blocked,
            draining=self._stopping.is_set(),
        )

    def stop(self) -> None:
        """Begin to drain: take nothing new, finish what runs, give back the rest."""
        self._stopping.set()

    async def consuming(self) -> None:
        """Return once all queues are consumed."""
        await self._connected.wait()

    async def run(self) -> Ending:
        """Work until stopped (or, in burst mode, until all queues are empty).

        Raises:
            ConfigurationError: it cannot work like this.
            BrokerUnreachable: no broker answered within `start_timeout`.
            NotConsuming: it is connected, messages wait, and it gets none.
        """
        cautions.warn(self._settings)
        self._metrics.prepare_worker(__version__)
        self._metrics.loop_lag.follow(self._lag.read)
        threads = Threads(self._settings.concurrency * (1 if self._strict else len(self._consumers)))
        self._publisher = Publisher(
            self._settings,
            f"publisher of {self._title}",
            on_published=self._count,
            record=ConnectionRecord(self._metrics, PUBLISHER),
        )
        self._record = ConnectionRecord(self._metrics, CONSUMER)
        self._lanes = self._make_lanes(threads)
        self._looks = QueueLooks(self._names, self._lanes, self._metrics)
        self._remote = Remote(self._settings, self._lanes, self._publisher)
        started: list[tuple[Consumer, Executor]] = []
        minding = asyncio.create_task(self._lag.mind())
        try:
            for consumer, executor in self._executors.items():
                started.append((consumer, executor))
                await self._call_hooks(consumer.startup, executor, "start-up hook")
                await executor.start()
            return await self._work()
        finally:
            for lane in self._lanes:
                lane.leave()
            for consumer, executor in reversed(started):
                await executor.close()
                with suppress(ConfigurationError):
                    await self._call_hooks(consumer.shutdown, executor, "shut-down hook")
            await self._publisher.close()
            threads.close()
            minding.cancel()
            await asyncio.wait({minding})

    @property
    def _title(self) -> str:
        return " ".join(consumer.queue for consumer in self._consumers)

    def _make_lanes(self, threads: Threads) -> list[Lane]:
        settings = self._settings
        settlement = Settlement(self._names, self._publisher, settings.publish_timeout)
        senders = Senders.of(settings)
        tracing = Tracing(settings)
        shared = Slots(settings.concurrency)
        lanes = []
        self._executors: dict[Consumer, Executor] = {}
        for consumer in self._consumers:
            for job in consumer.jobs.values():
                job.signature.check()
            senders.check(consumer.queue, consumer.require_user)
            self._metrics.prepare(consumer.queue, list(consumer.jobs), settings.concurrency)
            executor = self._executors[consumer] = Executor(
                consumer,
                threads,
                processes_for(consumer, settings, settings.concurrency, self._metrics),
                max_message_size=settings.max_message_size,
                unknown_job_delay=settings.unknown_job_delay,
                unknown_job_tries=settings.unknown_job_tries,
                max_crashes=settings.max_crashes,
                senders=senders,
                on_abandoned=self._metrics.abandoned.labels(consumer.queue).inc,
            )
            slots = shared if self._strict else Slots(settings.concurrency)
            lanes.append(Lane(consumer, executor, settlement, slots, self._metrics, self._start_in, tracing))
        return lanes

    async def _call_hooks(self, hooks: list[Hook], executor: Executor, what: str) -> None:
        for hook in hooks:
            try:
                await executor.call_hook(hook)
            except Exception as error:
                name = getattr(hook, "__qualname__", str(hook))
                log.error(f"{what} failed", hook=name, exc_info=error)
                raise ConfigurationError(f"{what} {name} failed: {type(error).__name__}: {error}") from error

    def _count(self, outcome: str, publication: Publication, seconds: float | None) -> None:
        if publication.exchange != self._names.control:
            self._metrics.count_published(outcome, seconds)

    # -- sessions

    async def _work(self) -> Ending:
        stopping = asyncio.create_task(self._stopping.wait())
        clock, short_ones, stalled, unreadable = asyncio.get_running_loop().time, 0, 0, Streak()
        try:
            while not stopping.done():
                session = await self._open_session()
                if session is None:
                    break
                began = clock()
                ended = asyncio.create_task(session.ended())
                chores = asyncio.create_task(self._chores(session))
                await asyncio.wait({ended, stopping, chores}, return_when=asyncio.FIRST_COMPLETED)
                ended.cancel()
                chores.cancel()
                await asyncio.wait({ended, chores}, timeout=CHORES_TIMEOUT)
                if chores.done() and not chores.cancelled() and (failed := chores.exception()) is not None:
                    # A defect of ours, and none of the jobs' business: a new session begins with all of them.
                    log.error("chores failed", exc_info=failed)
                if stopping.done():
                    return await self._drain(session)
                await self._leave(session)
                stalled = stalled + 1 if session.reason == STALLED else 0
                if stalled >= STALLED_SESSIONS:
                    await self._drain(None)
                    raise NotConsuming(f"{STALLED}, in {stalled} sessions one after another")
                unreadable.count(session.ended_by, self._title)
                short_ones = short_ones + 1 if clock() - began < SHORT_SESSION else 0
                if short_ones:
                    await self._pause(min(LONGEST_PAUSE, 0.1 * 2**short_ones) * random.uniform(0.5, 1.0))
            return await self._drain(None)
        finally:
            stopping.cancel()

    async def _open_session(self) -> Session | None:
        """A session that consumes all queues; None when told to stop before there was one."""
        transient: tuple[type[BaseException], ...] = (BrokerUnreachable, ConnectionLost, *LOST)
        if self._was_connected:  # what worked once may work again: a password restored, a queue re-created
            transient = (*transient, BrokerJobsError)
        try:
            async for attempt in AsyncRetrying(
                wait=wait_random_exponential(multiplier=0.2, max=LONGEST_PAUSE),
                stop=stop_never if self._was_connected else stop_after_delay(self._start_timeout),
                retry=retry_if_exception_type(transient),
                sleep=self._pause,
                before_sleep=self._say_unreachable,
                reraise=True,
            ):
                with attempt:
                    if self._stopping.is_set():
                        return None
                    return await self._try_session()
        except ConnectionLost as error:
            raise BrokerUnreachable(str(error)) from None
        return None

    async def _try_session(self) -> Session:
        session = await Session.open(self._settings, f"worker of {self._title}")
        try:
            if not self._was_connected:
                for lane in self._lanes:
                    capabilities = session.connection.capabilities
                    long_jobs.check(lane.consumer, self._settings, capabilities, self._prefetch(lane))
            # At first, all of it must be right; later each lane sees to its own queue.
            named = [] if self._was_connected else self._consumers
            await provision.ensure(session.connection, named, self._settings)
            await self._remote.begin(session)
            if self._strict:
                self._order = self._order_of(session)
            await self._consume_all(session)
        except BaseException:
            await self._leave(session)
            raise
        log.info("consuming", queues=self._title, rabbitmq=str(session.connection.capabilities),
                 broker=self._settings.address, concurrency=self._settings.concurrency)  # fmt: skip
        self._record.opened()
        session.connection.alarm.follow(self._record.alarmed)
        self._session = session
        self._was_connected = True
        self._connected.set()
        return session

    async def _consume_all(self, session: Session) -> None:
        """All at once: one after another, each question would wait behind what the queues before it bring.

        But one after another in strict order: whether a higher queue has jobs is asked on the channel that consumes it.
        """
        turns = asyncio.Semaphore(1 if self._strict else len(self._lanes))
        begun = (self._begin(session, lane, turns) for lane in self._lanes)
        failures = [
            error for error in await asyncio.gather(*begun, return_exceptions=True) if error is not None
        ]
        for error in failures:
            if not (self._was_connected and isinstance(error, BrokerJobsError)):
                raise error
        if len(failures) == len(self._lanes):
            raise failures[0]

    async def _begin(self, session: Session, lane: Lane, turns: asyncio.Semaphore) -> None:
        """Later, a queue that cannot be consumed keeps none of the others from it."""
        try:
            async with turns:
                await (self._consume_again if self._was_connected else self._consume)(session, lane)
        except BrokerJobsError as error:
            if self._was_connected:
                lane.lose(Loss(str(error)))
            raise
        lane.gate.resume(BROKER)

    async def _consume_again(self, session: Session, lane: Lane) -> None:
        await provision.ensure(session.connection, [lane.consumer], self._settings)
        await self._consume(session, lane)

    async def _consume(self, session: Session, lane: Lane) -> None:
        prefetch = self._prefetch(lane)
        await session.consume(
            self._names.queue(lane.queue),
            lane.queue,
            prefetch,
            lambda delivery: self._take(lane, delivery),
            paused=lane.gate.is_shut_here,
            within=long_jobs.acknowledge_within(lane.consumer, self._settings, prefetch),
            ask_kind=True,
            on_loss=lane.lose,
        )

    def _order_of(self, session: Session) -> StrictOrder:
        def ready(lane: Lane) -> Awaitable[int]:
            return session.ready(lane.queue, self._names.queue(lane.queue))

        return StrictOrder(self._lanes, self._prefetch, ready, lambda: self._start_in(self._lanes[0]))

    def _prefetch(self, lane: Lane) -> int:
        """As many as run at once: what waits in the inbox could not be overtaken by a higher priority."""
        return lane.consumer.prefetch or self._settings.prefetch or self._settings.concurrency

    async def _leave(self, session: Session) -> None:
        if session.has_ended and not self._stopping.is_set():
            log.warning("session ended", reason=session.reason, hint="running jobs go on; connecting again")
        if self._order is not None:
            self._order.close()
        self._connected.clear()
        self._record.lost()
        self._session, self._trouble = None, session.reason or self._trouble
        for lane in self._lanes:
            lane.forget_inbox()
        await session.close()
        for lane in self._lanes:  # what came meanwhile
            lane.forget_inbox()

    def _say_unreachable(self, state: RetryCallState) -> None:
        self._trouble = str(state.outcome.exception() if state.outcome else "")
        log.warning("no session yet", error=self._trouble, next_try_in=round(state.upcoming_sleep, 1))

    async def _pause(self, seconds: float) -> None:
        """Sleep between tries, unless told to stop meanwhile."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    # -- deliveries

    def _take(self, lane: Lane, delivery: object) -> None:
        lane.take(delivery)  # type: ignore[arg-type]
        self._start_in(lane)

    def _start_in(self, lane: Lane) -> None:
        """Start what can start where something has come or ended: each lane has its own slots, but in strict order."""
        if self._stopping.is_set():
            return
        if self._order is not None:
            self._order.start()
        else:
            lane.start()

    # -- beside the jobs

    async def _chores(self, session: Session) -> None:
        """What a session does besides consuming, until it is cancelled."""
        chores = Chores(self._settings, self._lanes, self._stopping)
        async with asyncio.TaskGroup() as group:
            if self._settings.topology != "none":
                capabilities = session.connection.capabilities
                needs = provision.needs_of_all(self._consumers, capabilities, self._settings)
                group.create_task(chores.sweep_unrouted(session, needs.bindings, self._publisher))
            group.create_task(chores.watch(session))
            group.create_task(chores.follow_marks(lambda: self._remote.look_for_pauses(session)))
            if self._settings.metrics_port is not None:
                group.create_task(chores.look_at_queues(session, self._looks))
            for lane in self._lanes:
                group.create_task(
                    chores.follow_gate(session, lane, lambda lane: self._consume_again(session, lane))
                )
            if self._strict:
                group.create_task(chores.return_stale())
            if self._burst:
                group.create_task(chores.stop_when_empty(session, self.stop))

    async def _drain(self, session: Session | None) -> Ending:
        running = sum(lane.running for lane in self._lanes)
        log.info("draining", running=running, timeout=self._settings.drain_timeout)
        giving_back = asyncio.gather(*(self._give_back(session, lane) for lane in self._lanes))
        returned = await asyncio.gather(*(lane.drain(self._settings.drain_timeout) for lane in self._lanes))
        with suppress(TimeoutError):  # closing the connection gives back as well
            async with asyncio.timeout(GIVE_BACK_TIMEOUT):
                await giving_back
        if session is not None:
            await self._leave(session)
        ending = Ending(returned=sum(returned))
        log.info("stopped", returned=ending.returned)
        return ending

    async def _give_back(self, session: Session | None, lane: Lane) -> None:
        """Let nothing more come, and return what has not started."""
        if session is not None:
            await session.cancel(lane.queue)
            await lane.return_inbox()
