"""A step ends as it should, whatever the client library makes of a lost connection and a cancelled task."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from brokerjobs import settings as settings_module
from brokerjobs.amqp.connection import ConnectionLost, deadline
from brokerjobs.chores import Chores


async def lost_when_cancelled() -> None:
    """What aiormq does when a task is cancelled in the moment in which its connection ends."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise ConnectionError("the connection ended") from None


async def cancelled(work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
    """A task with this work, told to end while it is at it; given one second."""
    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)  # noqa: TID251  (one turn of the loop: it begins to wait)
    task.cancel()
    await asyncio.wait({task}, timeout=1)
    return task


async def test_a_cancelled_step_stays_cancelled_though_its_connection_ends() -> None:
    async def work() -> None:
        async with deadline(5, "wait"):
            await lost_when_cancelled()

    assert (await cancelled(work)).cancelled()


async def test_an_outer_deadline_is_met_though_the_connection_ends() -> None:
    async def work() -> None:
        async with deadline(5, "wait"):
            await lost_when_cancelled()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(work(), 0.01)


async def test_a_step_in_a_task_that_is_ending_can_still_lose_its_connection() -> None:
    """Cleaning up: what was told to end before the step began is no business of the step."""
    lost: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            try:
                async with deadline(5, "clean up"):
                    raise ConnectionError("gone")
            except ConnectionError as error:
                lost.append(str(error))

    assert (await cancelled(work)).cancelled()
    assert lost == ["gone"]


async def test_a_cancellation_nobody_asked_for_is_a_lost_connection() -> None:
    with pytest.raises(ConnectionLost, match="during: wait"):
        async with deadline(5, "wait"):
            raise asyncio.CancelledError


async def test_a_missed_deadline_is_a_lost_connection() -> None:
    with pytest.raises(ConnectionLost, match=r"no answer within 0.01 s to: wait"):
        async with deadline(0.01, "wait"):
            await asyncio.Event().wait()


async def test_chores_end_when_told_to_though_their_connection_ends_as_well() -> None:
    chores = Chores(settings_module.load(url="amqp://localhost"), [], asyncio.Event())
    task = await cancelled(lambda: chores._every(60.0, lost_when_cancelled))
    assert task.cancelled()
