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
    timeout: float | None,
    awaitable: Awaitable[Any],
    what: str,
    cancellation: Cancellation,
    loop: Loop,
    *,
    is_wrapped: bool = False,
) -> Any:
    """What a coroutine returns, run in this task.

    Args:
        timeout: seconds; None for no limit.
        awaitable: the coroutine, not yet begun.
        what: its name, for people.
        cancellation: whether one from outside is meant.
        loop: the one that runs.
        is_wrapped: whether whoever awaits this may have timeouts of their own, so that a cancellation passes on to
            them though it is not meant; see `wrapped`.

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
    waiting = _Waiting(task, run, waits_for, limit, cancellation, is_wrapped)
    del waits_for  # it may come to hold an error, whose traceback holds this frame
    return await waiting.end(what, timeout)


async def wrapped(awaitable: Awaitable[Any], cancellation: Cancellation, loop: Loop) -> Any:
    """What others return who wrap a coroutine that runs `within`; a cancellation of their own ends here.

    Raises:
        CancelledError: this task was cancelled from outside, and that was meant.
        Exception: as `within` does.
    """
    task = this_task(loop)
    cancellations = task.cancelling()
    try:
        return await awaitable
    except GeneratorExit:  # not theirs: the loop has ended under it
        raise
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and cancellation.is_meant and task.cancelling():
            raise
        raise harmless(error)  # noqa: B904  (it says itself what caused it)
    finally:
        if task.cancelling() > cancellations and not cancellation.is_meant:
            await _forget_cancellations(task, cancellations)


class _Waiting:
    """A coroutine that has begun, and waits for something.

    Args:
        task: the one that runs it.
        run: the coroutine.
        waits_for: what it has yielded.
        limit: seconds from now; None for no limit.
        cancellation: whether one from outside is meant.
        is_wrapped: whether one passes on that is not.
    """

    __slots__ = (
        "_cancellation",
        "_inner",
        "_is_late",
        "_is_left",
        "_is_told",
        "_is_wrapped",
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
        is_wrapped: bool = False,
    ) -> None:
        self._task = task
        self._run = run
        self._waits_for = waits_for
        self._cancellation = cancellation
        self._is_wrapped = is_wrapped
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
        is_cancelled = self._is_cancelled or (self._is_left and not self._is_late)
        if self._task.cancelling():
            if self._is_wrapped and isinstance(error, asyncio.CancelledError):
                is_cancelled = is_cancelled or self._from_outside > 0
            await self._take_back(is_cancelled or self._is_wrapped)
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
        return self._cancellation.is_meant and self._from_outside > 0

    @property
    def _from_outside(self) -> int:
        """Cancellations that are neither the timeout's nor the coroutine's, as far as one can tell."""
        return self._task.cancelling() - self._ours - self._inner

    @coroutine
    def _drive(self) -> Generator[Any, None, Any]:
        """Run it step by step, as `await` does; between two steps it may be left.

        No variable keeps what holds an error: the error's traceback holds this frame, and so what the job held.
        """
        run, task = self._run, self._task
        while True:
            step: Callable[[], Any] = partial(run.send, None)
            try:
                if (
                    isinstance(self._waits_for, asyncio.Future)
                    and type(self._waits_for) is not asyncio.Future
                ):
                    yield from self._wait_apart(self._waits_for)
                else:
                    yield self._waits_for
            except GeneratorExit:
                run.close()
                raise
            except BaseException as error:
                if self._is_left:
                    _leave_behind(run)
                    return None
                step = partial(run.throw, error)
            self._waits_for = None
            before = task.cancelling()
            try:
                self._waits_for = step()
            except StopIteration as end:
                return end.value
            finally:
                del step
                if before or task.cancelling():
                    self._heed_cancellations(before)

    def _wait_apart(self, future: asyncio.Future[Any]) -> Generator[Any, None, None]:
        """Wait for what need not end when it is cancelled, such as a task, and hear of a cancellation at once."""
        loop = self._task.get_loop()
        if future.get_loop() is not loop:
            yield future  # which the task refuses
        future._asyncio_future_blocking = False  # as the task does with what it is given
        while True:
            waiter = loop.create_future()
            wake = partial(_wake, waiter)
            future.add_done_callback(wake)
            try:
                yield from waiter
                return
            except asyncio.CancelledError as error:
                if self._is_left or not future.cancel(*error.args):
                    raise
                self._tell()
            finally:
                future.remove_done_callback(wake)

    def _heed_cancellations(self, before: int) -> None:
        """After a step that began with so many: whose are they? One from outside must be obeyed in time."""
        now = self._task.cancelling()
        if now > before:
            self._inner += now - before
        else:  # `asyncio.timeout` and its like take back what they have asked for
            self._inner = min(self._inner, max(0, now - self._ours))
        self._tell()

    def _tell(self) -> None:
        if not self._is_told and self._is_cancelled:
            self._is_told = True
            self._after(CANCEL_GRACE, self._leave)

    async def _take_back(self, all_but_outside: bool) -> None:
        """Leave the task with the cancellations from outside, or with none."""
        await _forget_cancellations(self._task, max(0, self._from_outside) if all_but_outside else 0)

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


def _wake(waiter: asyncio.Future[None], _: object) -> None:
    if not waiter.done():
        waiter.set_result(None)


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


def _leave_behind(run: Run) -> None:
    """Let it go on in a task of its own, whose result nobody asks for."""
    task = asyncio.get_running_loop().create_task(_go_on(run))
    _left_behind.add(task)
    task.add_done_callback(_left_behind.discard)


async def _go_on(run: Run) -> None:
    with suppress(Exception):  # its end too, which is StopIteration
        waits_for = run.throw(asyncio.CancelledError())
        await _Waiting(this_task(), run, waits_for, None, Cancellation()).end("", None)


async def _forget_cancellations(task: asyncio.Task[Any], keep: int) -> None:
    """Also the one that the task has not been told of yet: whatever it waits for next would be told."""
    while task.cancelling() > keep:
        task.uncancel()
    with suppress(asyncio.CancelledError):  # one from outside comes too late now: it has ended
        await _turn()


@coroutine
def _turn() -> Generator[None, None, None]:
    """One turn of the event loop."""
    yield
