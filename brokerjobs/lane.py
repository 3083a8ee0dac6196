"""One queue inside a worker: its inbox, its slots, the runs in progress, and how each is settled.

Deliveries are only taken into the inbox by the session; jobs run in tasks of ours, which outlive the session that
brought them. When a session ends, its unstarted deliveries are dropped (the broker gives them back), and a run
without a live delivery settles nothing and publishes nothing: the broker delivers the message again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from brokerjobs.amqp.connection import ConnectionLost
from brokerjobs.amqp.session import Delivery
from brokerjobs.amqp.settlement import Settlement
from brokerjobs.consumer import Consumer
from brokerjobs.errors import BrokerJobsError
from brokerjobs.executor import Executor
from brokerjobs.failure import Failure
from brokerjobs.logs import log
from brokerjobs.message import Message, decode
from brokerjobs.metrics import OTHER, Metrics
from brokerjobs.outcome import DeadLettered, Outcome, Released, Retried, word

LAST_GRACE = 1.0  # seconds for what is cancelled to end
STALE = 60.0  # seconds in the inbox after which a delivery goes back: another worker may be free


class Slots:
    """How many jobs may run at once; lanes in strict order share one."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    @property
    def free(self) -> bool:
        return self.used < self.limit


class Run:
    """One message being worked on."""

    __slots__ = ("delivery", "message", "settling")

    def __init__(self, delivery: Delivery, message: Message) -> None:
        self.delivery = delivery
        self.message = message
        self.settling: asyncio.Task[None] | None = None

    @property
    def is_unsettled(self) -> bool:
        return not self.delivery.is_settled


class Lane:
    """Takes deliveries of one queue in, runs them in its slots, settles them.

    Args:
        consumer: whose jobs.
        executor: runs them.
        settlement: settles them.
        slots: how many at once.
        metrics: where it counts.
        freed: called whenever a slot became free.
    """

    def __init__(
        self,
        consumer: Consumer,
        executor: Executor,
        settlement: Settlement,
        slots: Slots,
        metrics: Metrics,
        freed: Callable[[], None],
    ) -> None:
        self.consumer = consumer
        self.queue = consumer.queue
        self._executor = executor
        self._settlement = settlement
        self._slots = slots
        self._metrics = metrics
        self._freed = freed
        self.changes = 0  # counts what came and what ended
        self._inbox: deque[tuple[float, Delivery]] = deque()
        self._runs: dict[asyncio.Task[None], Run | None] = {}

    @property
    def is_idle(self) -> bool:
        return not self._inbox and not self._runs

    @property
    def running(self) -> int:
        return len(self._runs)

    @property
    def has_waiting(self) -> bool:
        return bool(self._inbox)

    @property
    def has_free_slot(self) -> bool:
        return self._slots.free

    @property
    def held(self) -> int:
        """Deliveries that are not settled yet."""
        return len(self._inbox) + len(self._runs)

    def take(self, delivery: Delivery) -> None:
        """Take a delivery in; it starts when `start_next` finds a slot."""
        self.changes += 1
        self._inbox.append((time.monotonic(), delivery))

    def start_next(self) -> bool:
        """Start one waiting delivery if there is one and a slot for it."""
        if not self._inbox or not self._slots.free:
            return False
        _, delivery = self._inbox.popleft()
        self._slots.used += 1
        task = asyncio.create_task(self._process(delivery))
        self._runs[task] = None
        task.add_done_callback(self._done)
        return True

    def forget_inbox(self) -> None:
        """Drop what an ended session has brought; the broker gives it back."""
        self._inbox.clear()

    async def return_inbox(self, older_than: float = 0.0) -> None:
        """Give back what has waited longer than this many seconds."""
        now = time.monotonic()
        while self._inbox and now - self._inbox[0][0] >= older_than:
            _, delivery = self._inbox.popleft()
            try:
                await delivery.requeue()
            except ConnectionLost:
                return

    async def drain(self, timeout: float) -> int:
        """Let what runs finish; give back what does not within the timeout, and say how many those were.

        What runs is told to end, and a moment later what is still being settled: a copy that is not confirmed by
        then may be so never.
        """
        await self._wait_for_runs(timeout)
        running = {task for task, run in self._runs.items() if run is None or run.settling is None}
        for task in running:
            task.cancel()
        await self._wait_for_runs(self._settlement.timeout)
        held = {
            task
            for task, run in self._runs.items()
            if task not in running and run is not None and run.is_unsettled
        }
        for task in self._runs:
            task.cancel()
        await self._wait_for_runs(LAST_GRACE)
        return len(running | held)

    async def _wait_for_runs(self, timeout: float) -> None:
        if self._runs:
            await asyncio.wait(self._runs, timeout=timeout)

    def _done(self, task: asyncio.Task[None]) -> None:
        self.changes += 1
        del self._runs[task]
        self._slots.used -= 1
        if not task.cancelled() and (error := task.exception()) is not None:
            # A defect of ours: the delivery stays unsettled, the broker gives it back when the session ends.
            log.error("run failed", queue=self.queue, exc_info=error)
        self._freed()

    async def _process(self, delivery: Delivery) -> None:
        try:
            message = decode(delivery.properties, delivery.body, routing_key=delivery.routing_key)
        except Exception as error:
            message = Message(job=OTHER, routing_key=delivery.routing_key, body=delivery.body)
            run = self._begin(delivery, message)
            self._settle_now(run, DeadLettered(reason="undecodable", failure=Failure.of(error)))
            assert run.settling is not None
            await run.settling
        else:
            await self._execute(self._begin(delivery, message))

    def _begin(self, delivery: Delivery, message: Message) -> Run:
        run = Run(delivery, message)
        task = asyncio.current_task()
        assert task is not None
        self._runs[task] = run
        return run

    async def _execute(self, run: Run) -> None:
        message, job = run.message, self._label(run.message)
        began = time.monotonic()
        self._metrics.received.labels(self.queue, job).inc()
        self._metrics.wait.labels(self.queue).observe(max(0.0, time.time() - message.ready_at))
        in_progress = self._metrics.in_progress.labels(self.queue)
        in_progress.inc()
        try:
            outcome = await self._executor.execute(
                message,
                redelivered=run.delivery.redelivered,
                decide=lambda decision: self._settle_now(run, decision),
            )
        except asyncio.CancelledError:
            outcome = Released("the worker is stopping")
        finally:
            in_progress.dec()
        duration = time.monotonic() - began
        self._metrics.duration.labels(self.queue, job).observe(duration)
        self._metrics.finished.labels(self.queue, job, word(outcome)).inc()
        _say(message, self.queue, outcome, duration)
        self._settle_now(run, outcome)
        assert run.settling is not None
        await run.settling

    def _settle_now(self, run: Run, outcome: Outcome) -> None:
        """Settle by the first outcome: that of the job's own decision, or that of its end."""
        if run.settling is None:
            run.settling = asyncio.create_task(self._settle(run, outcome))

    async def _settle(self, run: Run, outcome: Outcome) -> None:
        """Settle; while a copy is not confirmed, hold the original and try again with backoff."""
        try:
            async for attempt in AsyncRetrying(
                wait=wait_random_exponential(multiplier=0.5, max=30),
                retry=retry_if_exception_type(BrokerJobsError),
                before_sleep=lambda state: self._held(run, state),
            ):
                with attempt:
                    if not run.delivery.is_live:
                        raise ConnectionLost("the session of this delivery has ended")
                    await self._settlement.settle(run.delivery, run.message, outcome)
        except ConnectionLost as error:
            self._metrics.settle_failures.labels(self.queue).inc()
            log.warning(
                "settlement lost", queue=self.queue, job=run.message.job, id=run.message.id,
                outcome=word(outcome), error=str(error), hint="it will be delivered again",
            )  # fmt: skip

    def _held(self, run: Run, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.error("copy not confirmed, job held", queue=self.queue, id=run.message.id, error=str(error))

    def _label(self, message: Message) -> str:
        job = self.consumer.find(message)
        return job.name if job is not None else OTHER


def _say(message: Message, queue: str, outcome: Outcome, duration: float) -> None:
    fields = {"job": message.job, "id": message.id, "queue": queue, "attempt": message.attempt}
    match outcome:
        case Retried():
            log.warning("job retried", **fields, delay=round(outcome.delay, 3), reason=outcome.reason,
                        error=str(outcome.failure or ""))  # fmt: skip
        case DeadLettered():
            log.error("job dead", **fields, reason=outcome.reason, error=str(outcome.failure))
        case Released():
            log.warning("job released", **fields, reason=outcome.reason)
        case _:
            log.info("job succeeded", **fields, duration=round(duration, 4))
