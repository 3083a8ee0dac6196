"""One queue inside a worker: its inbox, its slots, the runs in progress, and how each is settled.

Deliveries are only taken into the inbox by the session; jobs run in tasks of ours, which outlive the session that
brought them. When a session ends, its unstarted deliveries are dropped (the broker gives them back), and a run
without a live delivery settles nothing and publishes nothing: the broker delivers the message again, and then it is
adopted while it still runs, or absorbed when it has ended (`runs.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import replace
from sys import modules
from typing import TYPE_CHECKING, Any

from brokerjobs.amqp.connection import ConnectionLost
from brokerjobs.amqp.delivery import Delivery
from brokerjobs.amqp.session import Loss
from brokerjobs.amqp.settlement import Settlement
from brokerjobs.consumer import Consumer
from brokerjobs.durations import text
from brokerjobs.errors import BrokerJobsError, UndecodableMessage
from brokerjobs.executor import Executor
from brokerjobs.failure import Failure
from brokerjobs.gate import BROKER, ON_PURPOSE, Gate
from brokerjobs.health import QueueHealth
from brokerjobs.logs import log
from brokerjobs.message import Message, salvage, timestamp_of
from brokerjobs.metrics import OTHER, Metrics
from brokerjobs.outcome import DeadLettered, Outcome, Released, Retried, word
from brokerjobs.records import Records
from brokerjobs.runs import FOLLOWED_UP, Identity, Run, Runs, identity
from brokerjobs.settling import Settling
from brokerjobs.suspects import COUNTED, Tally, Verdict, judge
from brokerjobs.tracing import API, Tracing
from brokerjobs.worker_state import QueueWork, RecentFailure

if TYPE_CHECKING:
    from brokerjobs.spans import Attempt

# Seconds, after the drain timeout, for what is being settled, and then for what is cancelled. Together with closing
# connections they must stay below what the worker's own process, and its parent, allow beyond it (supervisor.child).
SETTLE_GRACE = 5.0
LAST_GRACE = 1.0
CANCELLED = DeadLettered(reason="cancelled", failure=Failure(text="an operator cancelled it"))
STALE = 60.0  # seconds in the inbox after which a delivery goes back: another worker may be free
DEFECT_REST = 10.0  # seconds before what met a defect of ours goes back: it may meet it again at once


Work = Callable[..., Coroutine[Any, Any, None]]


class Slots:
    """How many jobs may run at once; lanes in strict order share one."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    @property
    def free(self) -> bool:
        return self.used < self.limit


class Lane:
    """Takes deliveries of one queue in, runs them in its slots, settles them.

    Args:
        consumer: whose jobs.
        executor: runs them.
        settlement: settles them.
        slots: how many at once.
        metrics: where it counts.
        freed: called with the lane whenever one of its slots became free.
        tracing: makes its spans; without it there are none.
    """

    def __init__(
        self,
        consumer: Consumer,
        executor: Executor,
        settlement: Settlement,
        slots: Slots,
        metrics: Metrics,
        freed: Callable[[Lane], None],
        tracing: Tracing | None = None,
    ) -> None:
        self.consumer = consumer
        self.queue = consumer.queue
        self._executor = executor
        self._settlement = settlement
        self._slots = slots
        self._freed = freed
        self._tracing = tracing
        self._loop = executor.loop
        self.changes = 0  # counts what came and what ended
        self._inbox: deque[tuple[float, Delivery]] = deque()
        self._tasks: dict[asyncio.Task[None], Run | None] = {}
        self._runs = Runs()
        self._tally = Tally()
        self._records = Records(self.queue, metrics)
        metrics.in_progress.follow(lambda: len(self._starts), self.queue)
        metrics.oldest_start.follow(lambda: min(self._starts, default=0.0), self.queue)
        self.gate = Gate(self.queue, consumer.breaker, metrics, lambda: freed(self))
        self._settling = Settling(self.queue, settlement, self._runs, self.gate, self._records)
        self.is_cancelled: Callable[[Message, Callable[[], float]], bool] = lambda message, sent_at: False

    @property
    def is_idle(self) -> bool:
        return not self._inbox and not self._tasks

    @property
    def running(self) -> int:
        return len(self._tasks)

    @property
    def has_waiting(self) -> bool:
        return bool(self._inbox)

    @property
    def has_free_slot(self) -> bool:
        return self._slots.free

    @property
    def held(self) -> int:
        """Deliveries that are not settled yet."""
        return len(self._inbox) + len(self._tasks)

    def take(self, delivery: Delivery) -> None:
        """Take a delivery in; it starts when `start` finds a slot."""
        self.changes += 1
        if delivery.redelivered:
            self._records.came_again()
            self._take_again(delivery)
        else:
            self._inbox.append((time.monotonic(), delivery))

    def start(self) -> None:
        """Start what waits, as far as slots are free."""
        while self._inbox and self._slots.used < self._slots.limit and self.gate.lets_start:
            _, delivery = self._inbox.popleft()
            self.gate.began(self._start(delivery, self._process, delivery))

    def _start(self, delivery: Delivery, work: Work, *args: Any) -> asyncio.Task[None]:
        self._slots.used += 1
        task = self._loop.create_task(self._contained(delivery, work, *args))
        self._tasks[task] = None
        task.add_done_callback(self._done)
        return task

    # -- cancellations

    def cancel(self, id: str) -> list[dict[str, Any]]:
        """End the runs of an id; tells of each whether it was stopped: a thread can only be told."""
        found = []
        for task, run in list(self._tasks.items()):
            if run is None or run.message.id != id or run.settling is not None:
                continue
            if not self.is_cancelled(run.message, lambda run=run: _sent_at(run)):  # type: ignore[misc]
                continue
            run.cancellation.asked = run.cancellation.is_meant = True
            job = self.consumer.find(run.message)
            stopped = job is not None and job.can_be_stopped
            if stopped:
                task.cancel()
            log.warning("job cancelled", queue=self.queue, job=run.message.job, id=id, stopped=stopped)
            found.append({"queue": self.queue, "job": run.message.job, "stopped": stopped})
        return found

    def health(self, *, consuming: bool) -> QueueHealth:
        """How the queue does; may be asked from any thread."""
        pauses = dict(self.gate.pauses)
        paused = {who: why for who, why in pauses.items() if who in ON_PURPOSE}
        kept = {who: why for who, why in pauses.items() if who not in ON_PURPOSE}
        return QueueHealth(self.queue, consuming, self.running, self._slots.limit, paused, kept)

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """What runs now."""
        return [
            {
                "queue": self.queue,
                "job": run.message.job,
                "id": run.message.id,
                "attempt": run.message.attempt,
                "began": run.began,
            }
            for run in self._tasks.values()
            if run is not None
        ]

    @property
    def _starts(self) -> list[float]:
        """When what runs now was started; asked by any thread, so of a list that is made at once."""
        return [run.began for run in list(self._tasks.values()) if run is not None and not run.has_ended]

    @property
    def due(self) -> float:
        """When the message was due that was started last, seconds since the epoch; 0 before the first."""
        return self._records.due

    @property
    def work(self) -> QueueWork:
        """What was done since the start."""
        received, finished = self._records.counts
        return QueueWork(
            slots=self._slots.limit,
            unstarted=len(self._inbox),
            received=received,
            finished=finished,
            due=self._records.due,
            began=self._records.began_at,
        )

    @property
    def failures(self) -> Iterable[RecentFailure]:
        """The last attempts that failed, the oldest first."""
        return self._records.failures

    # -- what comes again

    def _take_again(self, delivery: Delivery) -> None:
        if not self._recognise(delivery):
            self._inbox.append((time.monotonic(), delivery))

    def _recognise(self, delivery: Delivery) -> bool:
        """Adopt or absorb a message whose run is known here."""
        try:
            message, known = _read(delivery)
        except Exception:  # a dead letter by the ordinary way
            return False
        return known is not None and self._is_known(delivery, message, known)

    def _is_known(self, delivery: Delivery, message: Message, known: Identity) -> bool:
        fields = {"queue": self.queue, "job": message.job, "id": message.id, "attempt": message.attempt}
        if (owed := self._runs.owed(known)) is not None:
            self._records.recognised("absorbed", self._label(message))
            log.info("job absorbed", **fields, outcome=word(owed))
            run = Run(delivery, message, known)
            self._runs.begin(run)
            self._start(delivery, self._settle_only, run, owed)
            return True
        if (orphan := self._runs.orphan(known)) is not None:
            self._records.recognised("adopted", self._label(message))
            log.info("job adopted", **fields)
            orphan.delivery = delivery
            return True
        if (held := self._runs.held(known)) is not None:
            before = {task for task, run in self._tasks.items() if run is held}
            self._start(delivery, self._take_after, before, delivery)
            return True
        return False

    async def _take_after(self, before: set[asyncio.Task[None]], delivery: Delivery) -> None:
        """It runs here already: who made a copy that counts lost its session before it acknowledged the original."""
        await asyncio.wait(before)
        if delivery.is_live:
            self.changes += 1
            self._take_again(delivery)

    async def _settle_only(self, run: Run, outcome: Outcome) -> None:
        self._remember(run)
        await self._settling.end(run, outcome)

    # -- endings

    def forget_inbox(self) -> None:
        """Drop what an ended session has brought; the broker gives it back."""
        self._inbox.clear()

    def lose(self, loss: Loss) -> None:
        """RabbitMQ has taken the queue from this worker alone, and gives back what it had delivered; jobs go on."""
        self.forget_inbox()
        self.changes += 1
        late = self._held_longest() if loss.is_late else {}
        log.warning("queue lost", queue=self.queue, reason=loss.why, **late,
                    hint="running jobs and other queues go on; consuming it again")  # fmt: skip
        self.gate.pause(BROKER, loss.why)
        self._freed(self)

    def _held_longest(self) -> dict[str, Any]:
        runs = [run for run in self._tasks.values() if run is not None and run.is_unsettled]
        if not runs:
            return {}
        run = min(runs, key=lambda run: run.began)
        return {"job": run.message.job, "id": run.message.id, "held_for": text(time.time() - run.began)}

    async def return_inbox(self, older_than: float = 0.0) -> None:
        """Give back what has waited longer than this many seconds."""
        now = time.monotonic()
        while self._inbox and now - self._inbox[0][0] >= older_than:
            _, delivery = self._inbox.popleft()
            with suppress(Exception):  # one that cannot be read is a dead letter when it starts
                self._runs.give_back(_read(delivery)[1])
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
        undecided = {task for task, run in self._tasks.items() if run is None or run.outcome is None}
        for task, run in self._tasks.items():
            if run is not None:
                run.cancellation.is_meant = True
            if run is None or not run.has_ended:
                task.cancel()
        await self._wait_for_runs(min(SETTLE_GRACE, self._settlement.timeout))
        held = {task for task, run in self._tasks.items() if run is not None and run.is_unsettled}
        for task in self._tasks:
            task.cancel()
        await self._wait_for_runs(LAST_GRACE)
        return len(undecided | held)

    def leave(self) -> None:
        """The worker ends, and its loop cancels whatever still runs: nothing of that is the jobs' doing."""
        for run in self._tasks.values():
            if run is not None:
                run.cancellation.is_meant = True

    async def _wait_for_runs(self, timeout: float) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)

    def _done(self, task: asyncio.Task[None]) -> None:
        self.changes += 1
        run = self._tasks.pop(task)
        self.gate.ended(task)
        if run is not None:
            self._runs.end(run)
        self._slots.used -= 1
        self._freed(self)

    async def _contained(self, delivery: Delivery, work: Work, *args: Any) -> None:
        """Give back what met a defect of ours: it would hold a place of the prefetch until the session ends."""
        try:
            await work(*args)
        except asyncio.CancelledError as error:
            run = self._tasks[self._this_task()]
            if run is None or run.cancellation.is_meant:
                raise
            # A job that was left behind has cancelled what it ran in.
            await self._give_back(delivery, run, error)
        except Exception as error:
            await self._give_back(delivery, self._tasks[self._this_task()], error)

    async def _give_back(self, delivery: Delivery, run: Run | None, error: BaseException) -> None:
        log.error("run failed", queue=self.queue, exc_info=error)
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(DEFECT_REST)  # noqa: TID251  (no event tells that a defect is over)
        delivery = run.delivery if run is not None else delivery
        if delivery.is_live:
            self._runs.give_back(run.identity if run is not None else None)
            with suppress(ConnectionLost):
                await delivery.requeue()

    async def _process(self, delivery: Delivery) -> None:
        try:
            message, known = _read(delivery)
        except Exception as error:
            message, outcome = _undecodable(delivery, error)
            run = self._begin(delivery, message)
            self._records.received(OTHER)
            span = self._span(message, OTHER)
            self._records.finished(message, outcome)
            if span is not None:
                span.ended(outcome)
            await self._settling.end(run, outcome)
        else:
            # Another worker has counted what came back to it, and this one has run it, or still does.
            if message.redeliveries and known is not None and self._is_known(delivery, message, known):
                return
            run = self._begin(delivery, message, known)
            came_back = delivery.redelivered and not self._runs.was_given_back(known)
            verdict = judge(message, redelivered=came_back, counted=delivery.is_counted)
            if verdict is Verdict.COUNT and await self._count(run):
                return
            await self._execute(run, suspect=verdict is not Verdict.RUN)

    async def _count(self, run: Run) -> bool:
        """Replace what came back by a copy that says so; False where that cannot be published: no reason to hold it."""
        # What came without a time comes again without one: it is part of what a message is recognised by.
        message = replace(run.message, timestamp=timestamp_of(run.delivery.properties))
        with self._tally.counting():
            try:
                await self._settlement.follow_up(message, COUNTED, self.queue)
            except BrokerJobsError:
                return not run.delivery.is_live  # then the broker delivers it again
            self._records.received(self._label(run.message))
            log.info("redelivery counted", queue=self.queue, job=run.message.job, id=run.message.id)
            # The copy is recognised by what it is, so nothing is remembered here.
            with suppress(ConnectionLost):
                await self._settlement.settle(run.delivery, FOLLOWED_UP)
                await asyncio.sleep(0)  # noqa: TID251  (it is written at the end of this turn)
            return True

    def _begin(self, delivery: Delivery, message: Message, known: Identity | None = None) -> Run:
        run = Run(delivery, message, known)
        self._runs.begin(run)
        self._remember(run)
        return run

    def _remember(self, run: Run) -> None:
        run.task = self._this_task()
        self._tasks[run.task] = run

    async def _execute(self, run: Run, *, suspect: bool) -> None:
        message, job = run.message, self._label(run.message)
        began = time.monotonic()
        self._records.began(message, job, run.began)
        span = self._span(message, job) if API in modules else None
        try:
            ended_with = await self._outcome(run, suspect)
        except BaseException as error:
            if span is not None:
                span.broke(error)
            raise
        outcome = run.outcome or ended_with  # what the job decided by hand holds, however it ended
        self.gate.heed(outcome)
        self._records.finished(message, outcome, job=job, duration=time.monotonic() - began)
        if span is not None:
            span.ended(outcome)
        await self._settling.end(run, outcome)

    def _span(self, message: Message, job: str) -> Attempt | None:
        spans = self._tracing.spans if self._tracing is not None else None
        return spans.attempt(message, self.queue, job) if spans is not None else None

    async def _outcome(self, run: Run, suspect: bool) -> Outcome:
        if self.is_cancelled(run.message, lambda: _sent_at(run)):
            return CANCELLED
        try:
            if run.message.redeliveries:
                await self._tally.complete()
            outcome = await self._executor.execute(
                run.message,
                redelivered=run.delivery.redelivered or run.message.redeliveries > 0,
                suspect=suspect,
                decide=lambda decision: self._settling.decide(run, decision),
                cancellation=run.cancellation,
            )
        except asyncio.CancelledError:
            if not run.cancellation.is_meant:  # by a hook: given back at once it would do so again at once
                raise
            if not run.cancellation.asked:
                return Released("the worker is stopping")
            self._this_task().uncancel()
            return CANCELLED
        # A cancelled job that could only be told may fail, but is not tried again.
        return CANCELLED if run.cancellation.asked and isinstance(outcome, Retried) else outcome

    def _this_task(self) -> asyncio.Task[Any]:
        task = asyncio.current_task(self._loop)
        assert task is not None
        return task

    def _label(self, message: Message) -> str:
        job = self.consumer.find(message)
        return job.name if job is not None else OTHER


def _undecodable(delivery: Delivery, error: Exception) -> tuple[Message, Outcome]:
    """What can be told of a message that no job can take."""
    if isinstance(error, UndecodableMessage):
        message = salvage(delivery.properties, delivery.body, routing_key=delivery.routing_key)
        return message, DeadLettered(reason=error.reason, failure=Failure(text=str(error)))
    message = Message(job=OTHER, routing_key=delivery.routing_key, body=delivery.body)
    return message, DeadLettered(reason="undecodable", failure=Failure.of(error))


def _read(delivery: Delivery) -> tuple[Message, Identity | None]:
    """The message, and by what it is recognised; not at all where its id is minted anew with each delivery."""
    message, sent = delivery.read()
    return message, None if sent is None else identity(message, sent)


def _sent_at(run: Run) -> float:
    """When the message was first published; 0 where its publisher does not tell."""
    message = run.message
    if message.published_at != message.timestamp or timestamp_of(run.delivery.properties):
        return message.published_at
    return 0.0
