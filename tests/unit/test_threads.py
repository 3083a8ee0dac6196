"""Threads of our own: as many as there are calls, replaced when a call keeps one, never in the way of the exit."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import pytest

from brokerjobs.executor import Threads
from brokerjobs.executor.threads import Call
from tests.waiting import eventually_async

AMPLE = 30.0  # seconds within which everything here ends


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    threads = Threads(3)
    yield threads
    threads.close()


@pytest.fixture
def held() -> Iterator[threading.Event]:
    """What keeps calls in their threads until the test lets go."""
    event = threading.Event()
    yield event
    event.set()


async def done(*calls: Call) -> list[Any]:
    async with asyncio.timeout(AMPLE):
        await asyncio.gather(*(call.done for call in calls))
    return [call.outcome() for call in calls]


class Holder:
    """A function for threads that says how many are in it, and stays until let go."""

    def __init__(self, held: threading.Event) -> None:
        self._held = held
        self._lock = threading.Lock()
        self.inside = 0
        self.most = 0

    def __call__(self) -> int:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self._held.wait(AMPLE)
        with self._lock:
            self.inside -= 1
        return threading.get_ident()


async def test_call_gives_its_result(threads: Threads) -> None:
    assert await done(threads.submit(lambda: 7)) == [7]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt(), StopIteration()])
async def test_call_gives_its_error_and_the_thread_goes_on(threads: Threads, error: BaseException) -> None:
    def fail() -> None:
        raise error

    call = threads.submit(fail)
    async with asyncio.timeout(AMPLE):
        await call.done

    with pytest.raises(type(error)):
        call.outcome()
    assert await done(threads.submit(lambda: 7)) == [7]


class Result(Exception):
    """Can be referred to weakly."""


@pytest.mark.parametrize("raises", [False, True])
async def test_nothing_holds_what_a_call_gave_once_it_was_asked(threads: Threads, raises: bool) -> None:
    given: list[weakref.ref[Result]] = []

    def give() -> Result:
        result = Result()
        given.append(weakref.ref(result))
        try:
            if raises:
                raise result
            return result
        finally:
            del result  # or its traceback would hold it by this frame

    async def ask() -> None:
        call = threads.submit(give)
        async with asyncio.timeout(AMPLE):
            await call.done
        with suppress(Result):
            call.outcome()

    gc.disable()
    try:
        await ask()
        await eventually_async(lambda: given[0]() is None)
    finally:
        gc.enable()


async def test_call_sees_the_context_of_whoever_submits_it(threads: Threads) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    calls = []
    for name in "a", "b":
        variable.set(name)
        calls.append(threads.submit(variable.get))
    variable.set("c")

    assert await done(*calls) == ["a", "b"]
    assert variable.get() == "c"


async def test_no_more_run_at_once_than_the_limit(threads: Threads, held: threading.Event) -> None:
    holder = Holder(held)
    calls = [threads.submit(holder) for _ in range(10)]
    await eventually_async(lambda: holder.inside == 3)

    held.set()
    idents = await done(*calls)

    assert holder.most == 3
    assert len(set(idents)) <= 3


async def test_as_many_run_at_once_as_the_limit_allows(threads: Threads) -> None:
    meeting = threading.Barrier(3)

    assert sorted(await done(*(threads.submit(lambda: meeting.wait(AMPLE)) for _ in range(3)))) == [0, 1, 2]


async def test_idle_threads_wake_for_as_many_calls_as_wait(threads: Threads) -> None:
    """However their calls alternate between such as need others to run beside them, and such as do not."""
    for _ in range(100):
        meeting = threading.Barrier(3)
        together = [threads.submit(lambda meeting=meeting: meeting.wait(AMPLE)) for _ in range(3)]  # type: ignore[misc]
        assert sorted(await done(*together)) == [0, 1, 2]
        assert await done(*(threads.submit(lambda: 7) for _ in range(10))) == [7] * 10


async def test_call_that_waits_for_another_one_does_not_hold_it_up(threads: Threads) -> None:
    """A thread that takes one and leaves another waiting must not keep that to itself."""
    for _ in range(100):
        over = threading.Event()
        waits, lets_go = threads.submit(lambda over=over: over.wait(AMPLE)), threads.submit(over.set)  # type: ignore[misc]
        assert await done(waits, lets_go) == [True, None]


async def test_idle_thread_is_used_again(threads: Threads) -> None:
    idents = set()

    for _ in range(20):
        idents.update(await done(threads.submit(threading.get_ident)))

    assert len(idents) == 1


async def test_all_results_come_back_when_many_finish_at_once(threads: Threads) -> None:
    """They are collected in batches; none may be left lying."""
    for _ in range(20):
        assert await done(*(threads.submit(functools.partial(int, n)) for n in range(50))) == list(range(50))


async def test_thread_of_an_abandoned_call_is_replaced(threads: Threads, held: threading.Event) -> None:
    holder = Holder(held)
    stuck = [threads.submit(holder) for _ in range(3)]
    await eventually_async(lambda: holder.inside == 3)
    waiting = threads.submit(lambda: 7)
    assert not waiting.done.done()

    threads.abandon(stuck[0])

    assert await done(waiting) == [7]
    assert holder.inside == 3


async def test_threads_of_abandoned_calls_do_not_add_up_to_more_than_the_limit(
    threads: Threads, held: threading.Event
) -> None:
    stuck = Holder(held)
    for call in [threads.submit(stuck) for _ in range(3)]:
        await eventually_async(lambda: stuck.inside == 3)
        threads.abandon(call)
    let_go = threading.Event()
    others = Holder(let_go)
    calls = [threads.submit(others) for _ in range(9)]
    await eventually_async(lambda: others.inside == 3)

    held.set()  # now the abandoned ones end: they must take nothing more
    await eventually_async(lambda: stuck.inside == 0)
    let_go.set()
    await done(*calls)

    assert others.most == 3


async def test_abandoned_call_reports_nothing(threads: Threads, held: threading.Event) -> None:
    holder = Holder(held)
    call = threads.submit(holder)
    await eventually_async(lambda: holder.inside == 1)

    threads.abandon(call)
    held.set()
    await eventually_async(lambda: holder.inside == 0)
    await done(threads.submit(lambda: None))

    assert not call.done.done()


async def test_call_abandoned_before_it_began_never_runs(threads: Threads, held: threading.Event) -> None:
    ran = []
    blocking = [threads.submit(lambda: held.wait(AMPLE)) for _ in range(3)]
    waiting = threads.submit(lambda: ran.append(1))

    threads.abandon(waiting)
    held.set()
    await done(*blocking, threads.submit(lambda: None))

    assert ran == []
    assert await done(*(threads.submit(lambda: 7) for _ in range(6))) == [7] * 6


async def test_abandoning_what_has_finished_changes_nothing(threads: Threads) -> None:
    call = threads.submit(lambda: 7)
    await done(call)

    threads.abandon(call)
    threads.abandon(call)

    meeting = threading.Barrier(3)
    await done(*(threads.submit(lambda: meeting.wait(AMPLE)) for _ in range(3)))


async def test_thread_that_cannot_be_started_fails_its_call_alone(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that is at its limit of processes."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for _ in range(5):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                threads.submit(lambda: 7)

    meeting = threading.Barrier(3)
    await done(*(threads.submit(lambda: meeting.wait(AMPLE)) for _ in range(3)))


async def test_closing_ends_idle_threads_and_busy_ones_after_their_call(held: threading.Event) -> None:
    threads = Threads(3)
    holder = Holder(held)
    call = threads.submit(holder)
    await done(threads.submit(threading.get_ident))
    await eventually_async(lambda: holder.inside == 1)
    ours = [thread for thread in threading.enumerate() if thread.name == "brokerjobs-job"]

    threads.close()
    held.set()
    await done(call)

    for thread in ours:
        await asyncio.to_thread(thread.join, AMPLE)
        assert not thread.is_alive()


async def test_threads_are_daemons_so_that_a_stuck_job_holds_up_no_exit(threads: Threads) -> None:
    [thread] = await done(threads.submit(threading.current_thread))

    assert thread.daemon
    assert thread.name == "brokerjobs-job"


def test_call_that_ends_after_its_loop_harms_nothing(held: threading.Event) -> None:
    seen: list[threading.Thread] = []

    def stay() -> None:
        seen.append(threading.current_thread())
        held.wait(AMPLE)

    async def leave() -> None:
        threads = Threads(1)
        threads.submit(stay)
        await eventually_async(lambda: bool(seen))
        threads.close()

    asyncio.run(leave())
    held.set()
    seen[0].join(AMPLE)

    assert not seen[0].is_alive()
