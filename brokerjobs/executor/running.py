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
from brokerjobs.errors import JobTimeout, UndecodableMessage
from brokerjobs.executor.coroutines import contained, harmless, too_long, within, wrapped
from brokerjobs.executor.deadlines import Deadlines
from brokerjobs.executor.threads import Threads
from brokerjobs.job import Hook, Job
from brokerjobs.logs import log
from brokerjobs.message import Message
from brokerjobs.middleware import compose
from brokerjobs.signature import ArgumentError

HOOK_TIMEOUT = 30.0  # seconds

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
        self._deadlines: dict[float, Deadlines] = {}  # by their timeout

    def run(self, job: Job[..., Any], context: Context, *, timeout: float | None) -> Awaitable[Any]:
        """What the function returns, run through the middleware.

        Args:
            job: whose function.
            context: of this run; holds the arguments.
            timeout: seconds for the function; None where somebody else watches the time.

        Raises:
            JobTimeout: it took longer.
            Exception: whatever the function or the middleware raised.
        """
        if not self._consumer.middleware:
            return self._call(job, context, timeout)
        call = functools.partial(self._call, job, context, timeout)
        through = compose(self._consumer.middleware, context, call)
        return wrapped(through(), context._cancellation, self._threads.loop)

    async def call_hook(self, hook: Hook, *args: Any) -> None:
        """Call a hook, plain or async, within a deadline; its error is the caller's to judge."""
        name = getattr(hook, "__qualname__", str(hook))
        if inspect.iscoroutinefunction(hook):
            async with asyncio.timeout(HOOK_TIMEOUT):
                await contained(hook(*args))
        else:
            await self._in_thread(functools.partial(hook, *args), HOOK_TIMEOUT, name)

    def _call(self, job: Job[..., Any], context: Context, timeout: float | None) -> Awaitable[Any]:
        if job.is_async:
            run = job.function(**context.arguments)
            return within(
                timeout, run, job.name, context._cancellation, self._threads.loop,
                is_wrapped=bool(self._consumer.middleware),
            )  # fmt: skip
        function = functools.partial(job.function, **context.arguments)
        return self._in_thread(function, timeout, job.name)

    async def _in_thread(self, function: Callable[[], Any], timeout: float | None, what: str) -> Any:
        call = self._threads.submit(function)
        expire = call.stop_waiting
        deadlines = None if timeout is None else self._deadlines_of(timeout)
        if deadlines is not None:
            deadlines.begin(expire)
        try:
            await call.done
        except asyncio.CancelledError:
            self._threads.abandon(call)
            raise
        finally:
            if deadlines is not None:
                deadlines.end(expire)
        if not call.has_ended:
            self._threads.abandon(call)
            self._on_abandoned()
            log.warning("thread abandoned", job=what, timeout=timeout)
            raise JobTimeout(f"{too_long(what, timeout)}; its thread cannot be ended and goes on")
        try:
            result = call.outcome()
        except BaseException as error:
            raise harmless(error)  # noqa: B904  (it says itself what caused it)
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError(
                f"{what} is a plain function and returned a coroutine, of which nothing ran: "
                "declare it async def, also where a decorator wraps it"
            )
        return result

    def _deadlines_of(self, timeout: float) -> Deadlines:
        deadlines = self._deadlines.get(timeout)
        if deadlines is None:
            deadlines = self._deadlines[timeout] = Deadlines(timeout, self._threads.loop)
        return deadlines


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
