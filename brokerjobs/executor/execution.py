"""execute(message) → Outcome: find the job, decode, check, let it run, judge.

Each step may end the run with its own outcome; a job's failure is an outcome, never an exception here.
Only a cancellation from outside (a drain that ran out of time) passes through.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from brokerjobs.consumer import Consumer
from brokerjobs.context import Cancellation, Context, current
from brokerjobs.delay import LONGEST
from brokerjobs.durations import seconds, text
from brokerjobs.errors import ConfigurationError, JobCrashed, Reject, RetryLater, UndecodableMessage
from brokerjobs.executor.processes import NoProcess, Processes
from brokerjobs.executor.running import Arguments, Runner, arguments_of
from brokerjobs.executor.threads import Threads
from brokerjobs.failure import Failure
from brokerjobs.job import Hook, Job
from brokerjobs.logs import log
from brokerjobs.message import Message
from brokerjobs.outcome import DeadLettered, Outcome, Retried, Succeeded
from brokerjobs.retry import Retry
from brokerjobs.senders import Senders

UNKNOWN_JOB = "unknown_job"
CRASHED = "crashed"

Decide = Callable[[Outcome], None]


class Executor:
    """Runs messages of one consumer.

    Args:
        consumer: whose jobs.
        threads: where plain functions run.
        processes: where isolated jobs run; without it they run here, like all others.
        max_message_size: bytes of body above which a message is not even decoded.
        unknown_job_delay: seconds between looks at a message whose job nobody knows.
        unknown_job_tries: how often it waits so.
        max_crashes: deaths of its process after which a job is dead.
        senders: tells who sent a message; without it nobody asks.
        on_abandoned: told when a thread is left behind.
    """

    def __init__(  # noqa: PLR0913  (keywords, each by its name)
        self,
        consumer: Consumer,
        threads: Threads,
        processes: Processes | None = None,
        *,
        max_message_size: int = 1024 * 1024,
        unknown_job_delay: float = 30.0,
        unknown_job_tries: int = 3,
        max_crashes: int = 3,
        senders: Senders | None = None,
        on_abandoned: Callable[[], None] = lambda: None,
    ) -> None:
        self._consumer = consumer
        self._runner = Runner(consumer, threads, on_abandoned)
        self._processes = processes
        self._max_message_size = max_message_size
        self._unknown_job_delay = unknown_job_delay
        self._unknown_job_tries = unknown_job_tries
        self._max_crashes = max_crashes
        self._senders = senders
        self.loop = threads.loop
        self._said_in_place = False

    async def start(self) -> None:
        """Start a process where one will be needed.

        Raises:
            ConfigurationError: it cannot work.
        """
        if self._processes is not None and any(job.isolate for job in self._consumer.jobs.values()):
            await self._processes.start()

    async def close(self) -> None:
        """End the processes that were started."""
        if self._processes is not None:
            await self._processes.close()

    async def execute(
        self,
        message: Message,
        *,
        redelivered: bool = False,
        suspect: bool = False,
        decide: Decide = lambda _: None,
        cancellation: Cancellation | None = None,
    ) -> Outcome:
        """Run the message's job and judge how it went.

        Args:
            message: what to run.
            redelivered: for the job to know.
            suspect: it may have killed a worker, so it runs in a child process.
            decide: told a decision that the job takes by hand, on the loop, while it still runs.
            cancellation: lets the job see that somebody asked for its end.
        """
        if self._consumer.require_user and (unverified := self._unverified(message)) is not None:
            return unverified
        has_times = message.not_after or message.not_before
        if has_times and (early_or_late := _too_early_or_late(message)) is not None:
            return early_or_late
        job = self._consumer.find(message)
        if job is None:
            return self._unknown(message)
        try:
            arguments = arguments_of(job, message, self._max_message_size)
        except UndecodableMessage as error:
            return DeadLettered(reason=error.reason, failure=Failure(text=str(error)))
        context = self._context(job, message, arguments, decide, cancellation or Cancellation(is_meant=True))
        context.redelivered = redelivered
        began = time.time()
        token = current.set(context)
        try:
            if suspect or job.isolate:
                result = await self._isolated(job, context)
            else:
                result = await self._runner.run(job, context, timeout=job.timeout)
        except Exception as error:
            return await self._failed(job, context, error, began)
        else:
            if job.hooks.success or self._consumer.hooks.success:
                await self._tell(job, "success", context, result)
            return context.decision or Succeeded(result)
        finally:
            current.reset(token)

    def _unverified(self, message: Message) -> Outcome | None:
        required = self._consumer.require_user
        if self._senders is None:
            return None
        refusal = self._senders.refusal(message, required)
        return DeadLettered(reason="unverified", failure=Failure(text=refusal)) if refusal else None

    def _unknown(self, message: Message) -> Outcome:
        known = ", ".join(self._consumer.jobs) or "none"
        failure = Failure(
            text=f"no worker of queue {self._consumer.queue!r} knows a job {message.job!r} "
            f"(routing key {message.routing_key!r}); it knows: {known}"
        )
        if message.unknown < self._unknown_job_tries:
            return Retried(delay=self._unknown_job_delay, reason=UNKNOWN_JOB, failure=failure, spends=False)
        return DeadLettered(reason=UNKNOWN_JOB, failure=failure)

    def _context(
        self,
        job: Job[..., Any],
        message: Message,
        arguments: Arguments,
        decide: Decide,
        cancellation: Cancellation,
    ) -> Context:
        return Context(
            message=message,
            queue=self._consumer.queue,
            arguments=arguments,
            deadline=time.monotonic() + job.timeout,
            max_attempts=job.retry.max_attempts,
            _decide=lambda outcome: _on(self.loop, decide, outcome),
            _cancellation=cancellation,
        )

    async def _isolated(self, job: Job[..., Any], context: Context) -> Any:
        if self._processes is not None:
            try:
                return await self._processes.run(job, context)
            except NoProcess as error:
                if job.isolate:
                    raise
                self._say_in_place(job, str(error))  # it is only suspected, and costs no attempt for that
        elif not job.isolate:
            self._say_in_place(job, "no other process could import its consumer")
        return await self._runner.run(job, context, timeout=job.timeout)

    def _say_in_place(self, job: Job[..., Any], why: str) -> None:
        if not self._said_in_place:
            self._said_in_place = True
            log.warning("suspect not isolated", queue=self._consumer.queue, job=job.name, reason=why)

    async def _failed(self, job: Job[..., Any], context: Context, error: Exception, began: float) -> Outcome:
        if isinstance(error, JobCrashed):
            log.error("job crashed", job=job.name, id=context.id, queue=context.queue, attempt=context.attempt,
                      exit=error.exit)  # fmt: skip
        if context.decision is not None:
            # The job has already decided about its message; only people still want to know of the error.
            log.warning(
                "job failed after its decision", job=job.name, id=context.id, error=str(Failure.of(error))
            )
            return context.decision
        outcome = self._judge(job, context, error, began)
        if not isinstance(error, RetryLater):
            await self._tell(job, "failure", context, error)
        if isinstance(outcome, DeadLettered):
            await self._tell(job, "exhausted", context, error)
        return outcome

    def _judge(self, job: Job[..., Any], context: Context, error: Exception, began: float) -> Outcome:
        began_ms = int(began * 1000)
        match error:
            case Reject():
                return DeadLettered(reason="rejected", failure=Failure.of(error))
            case RetryLater():
                return _later(error, began_ms)
            case JobCrashed() if context.message.crashes + 1 >= self._max_crashes:
                return DeadLettered(reason=CRASHED, failure=Failure.of(error))
        message, retry = context.message, job.retry
        elapsed = max(0.0, time.time() - (message.first_at / 1000 or began))
        crashed = isinstance(error, JobCrashed)
        is_its_own = not isinstance(error, JobCrashed | NoProcess)
        try:
            delay = retry.after(message.attempt, error, elapsed=elapsed, is_its_own=is_its_own)
            spent = delay is None and retry.retries(message.attempt, error, elapsed=elapsed)
        except Exception as broken:  # a strategy of the user's own: the default policy stands in for it
            log.error("retry policy failed", job=job.name, id=context.id, error=str(Failure.of(broken)))
            retry = Retry(retry.max_attempts)
            delay, spent = retry.after(message.attempt, error), True
        failure = Failure.of(error)
        if delay is None:
            reason = CRASHED if crashed else "exhausted" if spent else "failed"
            return DeadLettered(reason=reason, failure=failure)
        return Retried(delay=delay, reason=CRASHED if crashed else "failed", failure=failure, began=began_ms)

    async def _tell(self, job: Job[..., Any], event: str, context: Context, detail: Any) -> None:
        for hook in (*getattr(job.hooks, event), *getattr(self._consumer.hooks, event)):
            try:
                await self.call_hook(hook, context, detail)
            except Exception as error:
                log.error("hook failed", hook=getattr(hook, "__qualname__", str(hook)), job=job.name, id=context.id,
                          error=str(Failure.of(error)))  # fmt: skip

    async def call_hook(self, hook: Hook, *args: Any) -> None:
        """Call a hook, plain or async, within a deadline; its error is the caller's to judge."""
        await self._runner.call_hook(hook, *args)


def _too_early_or_late(message: Message) -> Outcome | None:
    now = time.time() * 1000
    if message.not_after and now > message.not_after:
        late = text((now - message.not_after) / 1000)
        return DeadLettered(reason="expired", failure=Failure(text=f"it should have started {late} earlier"))
    # What has been through the delay levels carries `due` and is never delayed again for this.
    if message.not_before > now and not message.due:
        return _wait((message.not_before - now) / 1000, "not_before")
    return None


def _later(error: RetryLater, began: int) -> Outcome:
    try:
        return _wait(seconds(error.after, name="RetryLater"), "retry_later", began)
    except ConfigurationError as wrong:
        return DeadLettered(reason="failed", failure=Failure.of(wrong))


def _wait(seconds_to_wait: float, reason: str, began: int = 0) -> Outcome:
    if seconds_to_wait > LONGEST:
        wish = f"it asks to wait {text(seconds_to_wait)}, beyond the longest delay of {text(LONGEST)}"
        return DeadLettered(reason=reason, failure=Failure(text=wish))
    return Retried(delay=seconds_to_wait, reason=reason, spends=False, began=began)


def _on(loop: asyncio.AbstractEventLoop, decide: Decide, outcome: Outcome) -> None:
    """Hand a decision to the loop, from wherever the job runs."""
    try:
        here = asyncio.get_running_loop() is loop
    except RuntimeError:
        here = False
    if here:
        decide(outcome)
    else:
        loop.call_soon_threadsafe(decide, outcome)
