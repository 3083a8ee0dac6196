"""A coroutine run in the task that asks: whose cancellation it was, and what is left when it does not end."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from structlog.testing import capture_logs

from brokerjobs.context import Cancellation
from brokerjobs.errors import JobTimeout
from brokerjobs.executor import coroutines
from brokerjobs.executor.coroutines import this_task, within, wrapped
from tests.waiting import eventually_async

SHORT = 0.05  # seconds
AMPLE = 30.0


async def run(awaitable: Awaitable[Any], timeout: float | None = AMPLE, *, is_meant: bool = False) -> Any:
    return await within(timeout, awaitable, "it", Cancellation(is_meant=is_meant), asyncio.get_running_loop())


@pytest.fixture(autouse=True)
def nobody_complains(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Of errors that nobody asked for."""
    yield
    gc.collect()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def after(seconds: float) -> None:
    """Wait for the loop's own clock."""
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, over.set)
    await over.wait()


async def is_undisturbed() -> bool:
    """Whether what this task waits for next is told of no cancellation."""
    await after(0)
    return this_task().cancelling() == 0


async def test_it_runs_in_the_task_that_asks() -> None:
    async def coroutine() -> tuple[object, object]:
        first = asyncio.current_task()
        await after(0)
        return first, asyncio.current_task()

    assert await run(coroutine()) == (this_task(), this_task())


async def test_what_is_awaitable_and_no_coroutine_is_awaited() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, 7)

    assert await run(future) == 7


async def test_error_passes_as_it_is() -> None:
    async def at_once() -> None:
        raise KeyError("first")

    async def later() -> None:
        await after(0)
        raise KeyError("later")

    with pytest.raises(KeyError, match="first"):
        await run(at_once())
    with pytest.raises(KeyError, match="later"):
        await run(later())


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
async def test_what_would_end_the_program_ends_it_alone(error: BaseException, waits: bool) -> None:
    if waits and isinstance(error, GeneratorExit):
        return  # that is how the loop closes what it leaves

    async def coroutine() -> None:
        if waits:
            await after(0)
        raise error

    with pytest.raises(RuntimeError, match=f"it raised {type(error).__name__}"):
        await run(coroutine())


# ---- cancelled from inside


async def test_cancelling_itself_disturbs_nobody_else() -> None:
    async def and_returns() -> int:
        this_task().cancel()
        return 7

    async def and_returns_later() -> int:
        await after(0)
        this_task().cancel()
        return 8

    async def and_raises() -> None:
        this_task().cancel()
        raise KeyError

    async def and_swallows() -> int:
        this_task().cancel()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await after(0)
        return 9

    assert await run(and_returns()) == 7
    assert await is_undisturbed()
    assert await run(and_returns_later()) == 8
    assert await is_undisturbed()
    with pytest.raises(KeyError):
        await run(and_raises())
    assert await is_undisturbed()

    async def and_swallows_later() -> int:
        await after(0)
        return await and_swallows()

    for swallows in and_swallows, and_swallows_later:
        assert await run(swallows(), is_meant=True) == 9
        assert await is_undisturbed()


async def test_what_it_has_started_may_cancel_it() -> None:
    async def coroutine() -> None:
        asyncio.get_running_loop().call_soon(this_task().cancel)
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="cancelled from inside"):
        await run(coroutine())

    assert await is_undisturbed()


async def test_its_own_timeouts_and_groups_work() -> None:
    async def times_out() -> str:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SHORT):
                await asyncio.Event().wait()
        await after(0)
        return "went on"

    async def groups() -> None:
        async def fail() -> None:
            raise KeyError

        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            await asyncio.Event().wait()

    assert await run(times_out(), is_meant=True) == "went on"
    assert await is_undisturbed()
    with pytest.raises(ExceptionGroup):
        await run(groups(), is_meant=True)
    assert await is_undisturbed()


async def test_timeout_of_its_own_that_it_swallows_is_no_cancellation_from_outside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(coroutines, "CANCEL_GRACE", SHORT)

    async def coroutine() -> str:
        try:
            async with asyncio.timeout(SHORT):
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    await after(3 * SHORT)  # cleans up for longer than the grace
                    raise
        except TimeoutError:
            return "timed out by itself"
        return ""

    assert await run(coroutine()) == "timed out by itself"
    assert await is_undisturbed()


# ---- its time is up


async def test_timeout_counts_from_its_start_and_ends_it() -> None:
    ended = []

    async def coroutine() -> None:
        try:
            async with asyncio.timeout(AMPLE):
                await asyncio.Event().wait()
        finally:
            ended.append(True)

    with pytest.raises(JobTimeout, match="it took longer than its timeout of 50ms"):
        await run(coroutine(), SHORT)

    assert ended == [True]
    assert await is_undisturbed()


async def test_one_that_goes_on_is_left_behind_and_may_end_as_it_likes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(coroutines, "CANCEL_GRACE", SHORT)
    let_go, ended, told = asyncio.Event(), [], []

    async def deaf() -> None:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                told.append(asyncio.current_task())
        ended.append(asyncio.current_task())
        raise KeyError("that nobody hears")

    with capture_logs() as lines, pytest.raises(JobTimeout):
        await run(deaf(), SHORT)

    assert [line["event"] for line in lines] == ["job ignores its timeout"]
    assert await is_undisturbed()
    let_go.set()
    await eventually_async(lambda: bool(ended))
    assert told[0] is this_task()
    assert ended[0] is not this_task()


async def deaf_until(let_go: asyncio.Event) -> None:
    while not let_go.is_set():
        with suppress(asyncio.CancelledError):
            await let_go.wait()


async def test_one_that_waits_for_what_goes_on_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coroutines, "CANCEL_GRACE", SHORT)
    let_go, ended = asyncio.Event(), []

    async def coroutine() -> None:
        try:
            await asyncio.create_task(deaf_until(let_go))
        finally:
            ended.append(asyncio.current_task())

    with capture_logs(), pytest.raises(JobTimeout):
        await asyncio.wait_for(run(coroutine(), SHORT), AMPLE)
    cancelled = asyncio.create_task(run(coroutine(), is_meant=True))
    with capture_logs():
        await after(0)
        cancelled.cancel()
        await asyncio.wait({cancelled}, timeout=AMPLE)

    assert cancelled.cancelled()
    assert await is_undisturbed()
    let_go.set()
    await eventually_async(lambda: len(ended) == 2)


async def test_what_it_waits_for_is_cancelled_with_it_and_ends_first() -> None:
    said, began = [], asyncio.Event()

    async def waited_for() -> None:
        try:
            began.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            await after(0)
            said.append(str(error))
            raise

    async def coroutine() -> None:
        try:
            await asyncio.create_task(waited_for())
        finally:
            said.append("ended")

    task = asyncio.create_task(run(coroutine(), is_meant=True))
    await began.wait()
    task.cancel("for a reason")
    await asyncio.wait({task}, timeout=AMPLE)

    assert task.cancelled()
    assert said == ["for a reason", "ended"]


async def test_tasks_that_it_waits_for_give_what_they_gave() -> None:
    async def fail() -> None:
        raise KeyError("theirs")

    async def give(value: int) -> int:
        await after(0)
        return value

    async def coroutine() -> Any:
        task = asyncio.create_task(fail())
        with pytest.raises(KeyError, match="theirs"):
            await task
        with pytest.raises(KeyError, match="theirs"):
            await task
        return await asyncio.gather(give(7), asyncio.create_task(give(8)))

    assert await run(coroutine()) == [7, 8]


async def failing() -> None:
    def fail(future: asyncio.Future[None]) -> None:
        future.set_exception(KeyErrorOfOurs())

    def failing_soon() -> asyncio.Future[None]:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(fail, future)
        return future

    await failing_soon()


class KeyErrorOfOurs(KeyError):
    """Can be referred to weakly."""


async def test_errors_hold_nothing_once_they_are_judged() -> None:
    errors: list[weakref.ref[BaseException]] = []

    async def cancelled() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            errors.append(weakref.ref(error))
            raise

    async def judged(awaitable: Awaitable[Any]) -> None:
        try:
            await run(awaitable, SHORT)
        except Exception as error:
            errors.append(weakref.ref(error))

    gc.disable()
    try:
        for awaitable in cancelled(), failing():
            await asyncio.create_task(judged(awaitable))
        assert len(errors) == 3
        assert [error() for error in errors] == [None] * 3
    finally:
        gc.enable()


# ---- cancelled from outside


@pytest.mark.parametrize("swallows", [False, True])
async def test_cancellation_from_outside_passes_through(swallows: bool) -> None:
    began = asyncio.Event()

    async def coroutine() -> str:
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not swallows:
                raise
        return "as if nothing had happened"

    task = asyncio.create_task(run(coroutine(), is_meant=True))
    await began.wait()
    task.cancel()
    await asyncio.wait({task}, timeout=AMPLE)

    assert task.cancelled()


async def test_cancellation_is_meant_from_when_somebody_says_so() -> None:
    cancellation, began = Cancellation(), asyncio.Event()

    async def coroutine() -> None:
        began.set()
        await asyncio.Event().wait()

    loop = asyncio.get_running_loop()
    task = asyncio.create_task(within(AMPLE, coroutine(), "it", cancellation, loop))
    await began.wait()
    cancellation.is_meant = True
    task.cancel()
    await asyncio.wait({task}, timeout=AMPLE)

    assert task.cancelled()


async def test_one_that_does_not_heed_it_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coroutines, "CANCEL_GRACE", SHORT)
    began, let_go = asyncio.Event(), asyncio.Event()

    async def deaf() -> None:
        began.set()
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    counts = []

    async def asked() -> None:
        try:
            await run(deaf(), is_meant=True)
        finally:
            counts.append(this_task().cancelling())

    task = asyncio.create_task(asked())
    await began.wait()
    with capture_logs():
        task.cancel()
        await asyncio.wait({task}, timeout=AMPLE)

    assert task.cancelled()
    assert counts == [1]
    let_go.set()


async def test_one_that_has_cancelled_itself_before_hears_it_too() -> None:
    began = asyncio.Event()

    async def coroutine() -> None:
        await after(0)
        this_task().cancel()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            this_task().uncancel()
        began.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(run(coroutine(), is_meant=True))
    await began.wait()
    task.cancel()
    await asyncio.wait({task}, timeout=AMPLE)

    assert task.cancelled()


async def test_one_that_denies_its_cancellation_has_not_succeeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coroutines, "CANCEL_GRACE", SHORT)
    let_go = asyncio.Event()

    async def coroutine() -> None:
        with suppress(asyncio.CancelledError):
            await let_go.wait()
        await after(0)
        this_task().uncancel()
        await deaf_until(let_go)

    task = asyncio.create_task(run(coroutine(), is_meant=True))
    await after(0)
    with capture_logs():
        task.cancel()
        await asyncio.wait({task}, timeout=AMPLE)

    assert task.cancelled()
    let_go.set()


async def test_one_that_cancels_itself_as_it_ends_disturbs_nobody_else() -> None:
    began, heard = asyncio.Event(), []

    async def coroutine() -> None:
        try:
            began.set()
            await asyncio.Event().wait()
        finally:
            this_task().cancel()

    async def asked() -> None:
        with suppress(asyncio.CancelledError):
            await run(coroutine(), is_meant=True)
        await after(0)
        heard.append(this_task().cancelling())

    task = asyncio.create_task(asked())
    await began.wait()
    task.cancel()
    await asyncio.wait({task}, timeout=AMPLE)

    assert heard == [1]


# ---- wrapped by others


async def by_group(call: Awaitable[Any]) -> Any:
    async def fail() -> None:
        raise TimeoutError

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            await call
    except ExceptionGroup:
        return "late"
    return None


async def by_timeout(call: Awaitable[Any]) -> Any:
    try:
        async with asyncio.timeout(SHORT):
            return await call
    except TimeoutError:
        return "late"


async def by_task(call: Awaitable[Any]) -> Any:
    try:
        return await asyncio.wait_for(call, SHORT)
    except TimeoutError:
        return "late"


def run_wrapped(
    by: Callable[[Awaitable[Any]], Awaitable[Any]], awaitable: Awaitable[Any], cancellation: Cancellation
) -> Awaitable[Any]:
    loop = asyncio.get_running_loop()
    call = within(AMPLE, awaitable, "it", cancellation, loop, is_wrapped=True)
    return wrapped(by(call), cancellation, loop)


async def forever() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("by", [by_timeout, by_task, by_group])
async def test_who_wraps_it_may_end_it(by: Callable[[Awaitable[Any]], Awaitable[Any]]) -> None:
    assert await run_wrapped(by, forever(), Cancellation()) == "late"
    assert await is_undisturbed()


async def test_cancelled_from_inside_it_is_an_error_beyond_who_wraps_it() -> None:
    async def coroutine() -> None:
        asyncio.get_running_loop().call_soon(this_task().cancel)
        await asyncio.Event().wait()

    async def swallows(call: Awaitable[Any]) -> str:
        with suppress(asyncio.CancelledError):
            await call
        return "went on"

    async def awaits(call: Awaitable[Any]) -> Any:
        return await call

    with pytest.raises(RuntimeError, match="cancelled from inside"):
        await run_wrapped(awaits, coroutine(), Cancellation())
    assert await is_undisturbed()
    assert await run_wrapped(swallows, coroutine(), Cancellation()) == "went on"
    assert await is_undisturbed()


async def test_cancellation_from_outside_passes_through_who_wraps_it() -> None:
    cancellation = Cancellation()
    task = asyncio.ensure_future(run_wrapped(by_timeout, forever(), cancellation))
    cancellation.is_meant = True
    await after(0)
    task.cancel()
    await asyncio.wait({task}, timeout=AMPLE)

    assert task.cancelled()


async def test_closing_the_task_closes_it() -> None:
    ended = []

    async def coroutine() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def asked() -> None:
        await run(coroutine())

    asking = asked()
    asking.send(None)
    asking.close()

    assert ended == [True]
