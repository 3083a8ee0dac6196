"""Run a job's function in this process, through its consumer's middleware; and its hooks.

`async def` on the loop, `def` in a thread, each within its timeout. What it raises is raised here.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from brokerjobs import payload
from brokerjobs.consumer import Consumer
from brokerjobs.context import Context
from brokerjobs.durations import text
from brokerjobs.errors import JobTimeout, UndecodableMessage
from brokerjobs.executor.threads import Threads
from brokerjobs.failure import Failure
from brokerjobs.job import Hook, Job
from brokerjobs.logs import log
from brokerjobs.message import Message
from brokerjobs.middleware import compose
from brokerjobs.signature import ArgumentError

HOOK_TIMEOUT = 30.0  # seconds
CANCEL_GRACE = 5.0  # seconds that an async job has to end after its timeout

Arguments = dict[str, Any]


class Runner:
    """Runs functions of one consumer.

    Args:
        consumer: whose jobs, middleware and hooks.
        threads: where plain functions run.
        on_abandoned: told when a thread is left behind.
    """

    def __init__(
        self, consumer: Consumer, threads: Threads, on_abandoned: Callable[[], None] = lambda: None
    ) -> None:
        self._consumer = consumer
        self._threads = threads
        self._on_abandoned = on_abandoned

    async def run(self, job: Job[..., Any], context: Context, *, timeout: float | None) -> Any:
        """What the function returns, run through the middleware.

        Args:
            job: whose function.
            context: of this run; holds the arguments.
            timeout: seconds for the function; None where somebody else watches the time.

        Raises:
            JobTimeout: it took longer.
            Exception: whatever the function or the middleware raised.
        """
        call = functools.partial(self._call, job, context, timeout)
        return await contained(compose(self._consumer.middleware, context, call)())

    async def call_hook(self, hook: Hook, *args: Any) -> None:
        """Call a hook, plain or async, within a deadline; its error is the caller's to judge."""
        name = getattr(hook, "__qualname__", str(hook))
        if inspect.iscoroutinefunction(hook):
            async with asyncio.timeout(HOOK_TIMEOUT):
                await contained(hook(*args))
        else:
            await contained(self._in_thread(functools.partial(hook, *args), HOOK_TIMEOUT, name))

    async def _call(self, job: Job[..., Any], context: Context, timeout: float | None) -> Any:
        call = functools.partial(job.function, **context.arguments)
        if job.is_async:
            return await _within(call(), timeout, job.name)
        result = await self._in_thread(call, timeout, job.name)
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError(
                f"{job.name} is a plain function and returned a coroutine, of which nothing ran: "
                "declare it async def, also where a decorator wraps it"
            )
        return result

    async def _in_thread(self, function: Callable[[], Any], timeout: float | None, what: str) -> Any:
        call = self._threads.submit(function)
        try:
            async with asyncio.timeout(timeout):
                await call.done
        except TimeoutError:
            self._threads.abandon(call)
            self._on_abandoned()
            log.warning("thread abandoned", job=what, timeout=timeout)
            raise JobTimeout(f"{_too_long(what, timeout)}; its thread cannot be ended and goes on") from None
        except asyncio.CancelledError:
            self._threads.abandon(call)
            raise
        return call.outcome()


def arguments_of(job: Job[..., Any], message: Message, limit: int) -> Arguments:
    """The arguments in a message, decoded and checked.

    Raises:
        UndecodableMessage: no arguments, or none that fit; also for a body above `limit` bytes.
    """
    if len(message.body) > limit:
        raise UndecodableMessage(
            "too_large",
            f"the body is {len(message.body):,} bytes, above the limit of {limit:,}",
        )
    if job.signature.is_raw:
        return {"body": message.body}
    args, kwargs = payload.decode(message.body, message.content_type, message.content_encoding)
    try:
        return job.signature.bind(tuple(args), kwargs)
    except ArgumentError as error:
        raise UndecodableMessage("arguments", str(error)) from None


async def _within(run: Awaitable[Any], timeout: float | None, what: str) -> Any:
    """Run a coroutine up to its timeout; one that swallows its cancellation is left behind."""
    task = asyncio.ensure_future(contained(run))
    try:
        await _until(task, timeout)
    except asyncio.CancelledError:
        await _cancel(task)
        raise
    if task.done():
        return task.result()
    await _cancel(task)
    if not task.done():
        log.error("job ignores its timeout", job=what, timeout=timeout)
    raise JobTimeout(_too_long(what, timeout))


async def _until(task: asyncio.Future[Any], timeout: float | None) -> None:
    """Return when it has ended or time is up: what `asyncio.wait` does for many, at a third of the cost."""
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()

    def wake(_: object = None) -> None:
        if not waiter.done():
            waiter.set_result(None)

    task.add_done_callback(wake)
    timer = loop.call_later(timeout, wake) if timeout is not None else None
    try:
        await waiter
    finally:
        task.remove_done_callback(wake)
        if timer is not None:
            timer.cancel()


def _too_long(what: str, timeout: float | None) -> str:
    return f"{what} took longer than its timeout of {text(timeout or 0)}"


async def _cancel(task: asyncio.Future[Any]) -> None:
    """Cancel it and wait a moment; however it ends, nobody asks for its result any more."""
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    task.cancel()
    await asyncio.wait({task}, timeout=CANCEL_GRACE)


async def contained(run: Awaitable[Any]) -> Any:
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
