"""execute(message) → Outcome: find the job, decode, check, run within its timeout, judge.

Each step may end the run with its own outcome; a job's failure is an outcome, never an exception here.
Only a cancellation from outside (a drain that ran out of time) passes through.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any

from brokerjobs import payload
from brokerjobs.consumer import Consumer
from brokerjobs.context import Context, current
from brokerjobs.delay import LONGEST
from brokerjobs.durations import seconds, text
from brokerjobs.errors import ConfigurationError, JobTimeout, Reject, RetryLater, UndecodableMessage
from brokerjobs.executor.threads import Threads
from brokerjobs.failure import Failure
from brokerjobs.job import Hook, Job
from brokerjobs.logs import log
from brokerjobs.message import Message
from brokerjobs.middleware import compose
from brokerjobs.outcome import DeadLettered, Outcome, Retried, Succeeded
from brokerjobs.retry import Retry
from brokerjobs.signature import ArgumentError

HOOK_TIMEOUT = 30.0  # seconds
CANCEL_GRACE = 5.0  # seconds that an async job has to end after its timeout
UNKNOWN_JOB = "unknown_job"

Decide = Callable[[Outcome], None]


class Executor:
    """Runs messages of one consumer.

    Args:
        consumer: whose jobs.
        threads: where plain functions run.
        max_message_size: bytes of body above which a message is not even decoded.
        unknown_job_delay: seconds between looks at a message whose job nobody knows.
        unknown_job_tries: how often it waits so.
        on_abandoned: told when a thread is left behind.
    """

    def __init__(
        self,
        consumer: Consumer,
        threads: Threads,
        *,
        max_message_size: int = 1024 * 1024,
        unknown_job_delay: float = 30.0,
        unknown_job_tries: int = 3,
        on_abandoned: Callable[[], None] = lambda: None,
    ) -> None:
        self._consumer = consumer
        self._threads = threads
        self._max_message_size = max_message_size
        self._unknown_job_delay = unknown_job_delay
        self._unknown_job_tries = unknown_job_tries
        self._on_abandoned = on_abandoned

    async def execute(
        self, message: Message, *, redelivered: bool = False, decide: Decide = lambda _: None
    ) -> Outcome:
        """Run the message's job and judge how it went.

        Args:
            message: what to run.
            redelivered: for the job to know.
            decide: told a decision that the job takes by hand, on the loop, while it still runs.
        """
        if (early_or_late := self._too_early_or_late(message)) is not None:
            return early_or_late
        job = self._consumer.find(message)
        if job is None:
            return self._unknown(message)
        try:
            arguments = self._arguments(job, message)
        except UndecodableMessage as error:
            return DeadLettered(reason=error.reason, failure=Failure(text=str(error)))
        return await self._run(job, message, arguments, redelivered, decide)

    def _too_early_or_late(self, message: Message) -> Outcome | None:
        now = time.time() * 1000
        if message.not_after and now > message.not_after:
            late = text((now - message.not_after) / 1000)
            return DeadLettered(
                reason="expired", failure=Failure(text=f"it should have started {late} earlier")
            )
        # What has been through the delay levels carries `due` and is never delayed again for this.
        if message.not_before > now and not message.due:
            return _wait((message.not_before - now) / 1000, "not_before")
        return None

    def _unknown(self, message: Message) -> Outcome:
        known = ", ".join(self._consumer.jobs) or "none"
        failure = Failure(
            text=f"no worker of queue {self._consumer.queue!r} knows a job {message.job!r} "
            f"(routing key {message.routing_key!r}); it knows: {known}"
        )
        if message.unknown < self._unknown_job_tries:
            return Retried(delay=self._unknown_job_delay, reason=UNKNOWN_JOB, failure=failure, spends=False)
        return DeadLettered(reason=UNKNOWN_JOB, failure=failure)

    def _arguments(self, job: Job[..., Any], message: Message) -> dict[str, Any]:
        if len(message.body) > self._max_message_size:
            raise UndecodableMessage(
                "too_large",
                f"the body is {len(message.body):,} bytes, above the limit of {self._max_message_size:,}",
            )
        if job.signature.is_raw:
            return {"body": message.body}
        args, kwargs = payload.decode(message.body, message.content_type, message.content_encoding)
        try:
            return job.signature.bind(tuple(args), kwargs)
        except ArgumentError as error:
            raise UndecodableMessage("arguments", str(error)) from None

    async def _run(
        self,
        job: Job[..., Any],
        message: Message,
        arguments: dict[str, Any],
        redelivered: bool,
        decide: Decide,
    ) -> Outcome:
        loop = asyncio.get_running_loop()
        began = time.time()
        context = Context(
            message=message,
            queue=self._consumer.queue,
            arguments=arguments,
            redelivered=redelivered,
            deadline=time.monotonic() + job.timeout,
            max_attempts=job.retry.max_attempts,
            _decide=lambda outcome: _on(loop, decide, outcome),
        )
        token = current.set(context)
        try:
            call = functools.partial(self._call, job, arguments)
            result = await _contained(compose(self._consumer.middleware, context, call)())
        except Exception as error:
            return await self._failed(job, context, error, began)
        else:
            await self._tell(job, "success", context, result)
            return context.decision or Succeeded(result)
        finally:
            current.reset(token)

    async def _call(self, job: Job[..., Any], arguments: dict[str, Any]) -> Any:
        if job.is_async:
            return await _within(job.function(**arguments), job)
        result = await self._in_thread(functools.partial(job.function, **arguments), job.timeout, job.name)
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError(
                f"{job.name} is a plain function and returned a coroutine, of which nothing ran: "
                "declare it async def, also where a decorator wraps it"
            )
        return result

    async def _in_thread(self, function: Callable[[], Any], timeout: float, what: str) -> Any:
        call = self._threads.submit(function)
        try:
            async with asyncio.timeout(timeout):
                await call.done
        except TimeoutError:
            self._threads.abandon(call)
            self._on_abandoned()
            log.warning("thread abandoned", job=what, timeout=timeout)
            raise JobTimeout(
                f"{what} took longer than its timeout of {text(timeout)}; its thread cannot be ended and goes on"
            ) from None
        except asyncio.CancelledError:
            self._threads.abandon(call)
            raise
        return call.outcome()

    async def _failed(self, job: Job[..., Any], context: Context, error: Exception, began: float) -> Outcome:
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
        message, retry = context.message, job.retry
        elapsed = max(0.0, time.time() - (message.first_at / 1000 or began))
        try:
            delay = retry.after(message.attempt, error, elapsed=elapsed)
            spent = delay is None and retry.retries(message.attempt, error, elapsed=elapsed)
        except Exception as broken:  # a strategy of the user's own: the default policy stands in for it
            log.error("retry policy failed", job=job.name, id=context.id, error=str(Failure.of(broken)))
            retry = Retry(retry.max_attempts)
            delay, spent = retry.after(message.attempt, error), True
        if delay is None:
            return DeadLettered(reason="exhausted" if spent else "failed", failure=Failure.of(error))
        return Retried(delay=delay, reason="failed", failure=Failure.of(error), began=began_ms)

    async def _tell(self, job: Job[..., Any], event: str, context: Context, detail: Any) -> None:
        for hook in (*getattr(job.hooks, event), *getattr(self._consumer.hooks, event)):
            try:
                await self.call_hook(hook, context, detail)
            except Exception as error:
                log.error("hook failed", hook=getattr(hook, "__qualname__", str(hook)), job=job.name, id=context.id,
                          error=str(Failure.of(error)))  # fmt: skip

    async def call_hook(self, hook: Hook, *args: Any) -> None:
        """Call a hook, plain or async, within a deadline; its error is the caller's to judge."""
        name = getattr(hook, "__qualname__", str(hook))
        if inspect.iscoroutinefunction(hook):
            async with asyncio.timeout(HOOK_TIMEOUT):
                await _contained(hook(*args))
        else:
            await _contained(self._in_thread(functools.partial(hook, *args), HOOK_TIMEOUT, name))


async def _within(run: Awaitable[Any], job: Job[..., Any]) -> Any:
    """Run a coroutine up to its timeout; one that swallows its cancellation is left behind."""
    task = asyncio.ensure_future(_contained(run))
    try:
        done, _ = await asyncio.wait({task}, timeout=job.timeout)
    except asyncio.CancelledError:
        await _cancel(task)
        raise
    if done:
        return task.result()
    await _cancel(task)
    if not task.done():
        log.error("job ignores its timeout", job=job.name, timeout=job.timeout)
    raise JobTimeout(f"{job.name} took longer than its timeout of {text(job.timeout)}")


async def _cancel(task: asyncio.Future[Any]) -> None:
    """Cancel it and wait a moment; however it ends, nobody asks for its result any more."""
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    task.cancel()
    await asyncio.wait({task}, timeout=CANCEL_GRACE)


async def _contained(run: Awaitable[Any]) -> Any:
    """Run it so that what would end the program, or pass for a cancellation from outside, ends it alone."""
    try:
        return await run
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise RuntimeError("it was cancelled from inside") from None
    except GeneratorExit:  # not the job's: the loop has ended under it
        raise
    except BaseException as error:
        if isinstance(error, Exception):
            raise
        raise RuntimeError(f"it raised {Failure.of(error)}") from error


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
