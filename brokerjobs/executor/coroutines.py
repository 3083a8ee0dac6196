"""Run coroutines of others in the task that asks for them, up to a timeout.

No task of its own for each: to make one and wait for it costs more than most of what a worker does for a job. So a
cancellation has to be told apart here: from outside (a drain, an operator), from the timeout, or from inside, by the
job or what it has started.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from functools import partial
from types import CoroutineType, coroutine
from typing import Any

from brokerjobs.context import Cancellation
from brokerjobs.durations import text
from brokerjobs.errors import JobTimeout
from brokerjobs.failure import Failure
from brokerjobs.logs import log

CANCEL_GRACE = 5.0  # seconds that a coroutine has to end after it was cancelled

Run = Coroutine[Any, Any, Any]
Loop = asyncio.AbstractEventLoop

_left_behind: set[asyncio.Task[None]] = set()


async def within(
    timeout: float | None, awaitable: Awaitable[Any], what: str, cancellation: Cancellation, loop: Loop
) -> Any:
    """What a coroutine returns, run in this task.

    Args:
        timeout: seconds; None for no limit.
        awaitable: the coroutine, not yet begun.
        what: its name, for people.
        cancellation: whether one from outside is meant.
        loop: the one that runs.

    Raises:
        JobTimeout: it took longer. One that swallows its cancellation is left behind, in a task of its own.
        CancelledError: this task was cancelled from outside, and the coroutine has ended, or was left behind.
        Exception: whatever else it raised; what would end the program, or pass for a cancellation, as RuntimeError.
    """
    run: Run = awaitable if type(awaitable) is CoroutineType else _awaited(awaitable)
    task = this_task(loop)
    began, cancellations = time.monotonic(), task.cancelling()
    try:
        waits_for = run.send(None)
    except StopIteration as end:
        if task.cancelling() > cancellations:
            await _forget_cancellations(task, cancellations)
        return end.value
    except BaseException as error:
        if task.cancelling() > cancellations:
            await _forget_cancellations(task, cancellations)
        raise harmless(error)  # noqa: B904  (it says itself what caused it)
    limit = None if timeout is None else began + timeout - time.monotonic()
    return await _Waiting(task, run, waits_for, limit, cancellation).end(what, timeout)


class _Waiting:
    """A coroutine that has begun, and waits for something.

    Args:
        task: the one that runs it.
        run: the coroutine.
        waits_for: what it has yielded.
        limit: seconds from now; None for no limit.
        cancellation: whether one from outside is meant.
    """

    __slots__ = (
        "_cancellation",
        "_inner",
        "_is_late",
        "_is_left",
        "_is_told",
        "_ours",
        "_run",
        "_task",
        "_timer",
        "_waits_for",
    )

    def __init__(
        self,
        task: asyncio.Task[Any],
        run: Run,
        waits_for: Any,
        limit: float | None,
        cancellation: Cancellation,
    ) -> None:
        self._task = task
        self._run = run
        self._waits_for = waits_for
        self._cancellation = cancellation
        self._is_late = self._is_told = self._is_left = False
        self._ours = 0  # cancellations by the timeout
        self._inner = task.cancelling()  # by the coroutine itself, or before it began
        self._timer: asyncio.TimerHandle | None = None
        if limit is not None:
            self._after(limit, self._end_late)

    async def end(self, what: str, timeout: float | None) -> Any:
        """What it returns; raises as `within` does."""
        result, error = None, None
        try:
            result = await self._drive()
        except GeneratorExit:  # not the coroutine's: the loop has ended under it
            raise
        except BaseException as raised:
            error = raised
        finally:
            if self._timer is not None:
                self._timer.cancel()
        is_cancelled = self._is_cancelled
        if self._task.cancelling():
            await self._take_back(is_cancelled)
        try:
            if self._is_left:
                log.error("job ignores its timeout", job=what, timeout=timeout)
            if is_cancelled:
                raise asyncio.CancelledError
            if self._is_late:
                raise JobTimeout(too_long(what, timeout))
            if error is not None:
                raise harmless(error)
            return result
        finally:
            del error  # it holds its traceback, which holds this frame

    @property
    def _is_cancelled(self) -> bool:
        """Whether somebody outside wants its end."""
        return self._cancellation.is_meant and self._task.cancelling() > self._ours + self._inner

    @coroutine
    def _drive(self) -> Generator[Any, None, Any]:
        """Run it step by step, as `await` does; between two steps it may be left."""
        run, task = self._run, self._task
        while True:
            step: Callable[[], Any] = partial(run.send, None)
            try:
                yield self._waits_for
            except GeneratorExit:
                run.close()
                raise
            except BaseException as error:
                if self._is_left:
                    _leave_behind(run, error)
                    return None
                step = partial(run.throw, error)
            before = task.cancelling()
            try:
                self._waits_for = step()
            except StopIteration as end:
                return end.value
            finally:
                if before or task.cancelling():
                    self._heed_cancellations(before)

    def _heed_cancellations(self, before: int) -> None:
        """After a step that began with so many: whose are they? One from outside must be obeyed in time."""
        now = self._task.cancelling()
        if now > before:
            self._inner += now - before
        else:  # `asyncio.timeout` and its like take back what they have asked for
            self._inner = min(self._inner, max(0, now - self._ours))
        if not self._is_told and self._is_cancelled:
            self._is_told = True
            self._after(CANCEL_GRACE, self._leave)

    async def _take_back(self, is_cancelled: bool) -> None:
        """Leave the task with the cancellations from outside, if they were meant, and with no others."""
        outside = self._task.cancelling() - self._ours - self._inner if is_cancelled else 0
        for _ in range(self._task.cancelling() - outside):
            self._task.uncancel()
        if not is_cancelled:
            await _forget_cancellations(self._task, 0)

    def _after(self, seconds: float, call: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._task.get_loop().call_later(seconds, call)

    def _end_late(self) -> None:
        self._is_late = self._is_told = True
        self._cancel()
        self._after(CANCEL_GRACE, self._leave)

    def _leave(self) -> None:
        self._is_left = True
        self._cancel()

    def _cancel(self) -> None:
        self._ours += 1
        self._task.cancel()


async def contained(run: Awaitable[Any]) -> Any:
    """Run it so that what would end the program, or pass for a cancellation from outside, ends it alone."""
    try:
        return await run
    except GeneratorExit:  # not the job's: the loop has ended under it
        raise
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and this_task().cancelling():
            raise
        raise harmless(error)  # noqa: B904  (it says itself what caused it)


def harmless(error: BaseException) -> Exception:
    """The error, or what stands for it where it would end the task or the program."""
    if isinstance(error, Exception):
        return error
    if isinstance(error, asyncio.CancelledError):
        stand_in, cause = RuntimeError("it was cancelled from inside"), None
    else:
        stand_in, cause = RuntimeError(f"it raised {Failure.of(error)}"), error
    stand_in.__cause__ = cause
    return stand_in


def too_long(what: str, timeout: float | None) -> str:
    return f"{what} took longer than its timeout of {text(timeout or 0)}"


def this_task(loop: Loop | None = None) -> asyncio.Task[Any]:
    task = asyncio.current_task(loop)
    assert task is not None
    return task


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _leave_behind(run: Run, error: BaseException) -> None:
    """Let it go on in a task of its own, whose result nobody asks for."""
    task = asyncio.get_running_loop().create_task(_go_on(run, error))
    _left_behind.add(task)
    task.add_done_callback(_left_behind.discard)


async def _go_on(run: Run, error: BaseException) -> None:
    with suppress(Exception):  # its end too, which is StopIteration
        waits_for = run.throw(error)
        await _Waiting(this_task(), run, waits_for, None, Cancellation()).end("", None)


async def _forget_cancellations(task: asyncio.Task[Any], keep: int) -> None:
    """Also the one that the task has not been told of yet: whatever it waits for next would be told."""
    while task.cancelling() > keep:
        task.uncancel()
    try:
        await _turn()
    except asyncio.CancelledError:
        if task.cancelling() > keep:
            raise


@coroutine
def _turn() -> Generator[None, None, None]:
    """One turn of the event loop."""
    yield
