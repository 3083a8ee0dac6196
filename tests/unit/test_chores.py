"""When a worker in burst mode stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from brokerjobs import Breaker, chores
from brokerjobs import settings as settings_module
from brokerjobs.chores import Chores
from brokerjobs.gate import BREAKER, Gate
from brokerjobs.metrics import Metrics
from brokerjobs.worker_state import OPERATOR
from tests.waiting import eventually_async


class Lane:
    """What chores see of a lane."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.is_idle = True
        self.changes = 0
        self.gate = Gate(queue, Breaker(rest="2m"), Metrics(), lambda: None)


class Session:
    """Answers how much waits; what happens meanwhile is up to the test."""

    def __init__(self) -> None:
        self.waiting = {"emails": 0, "reports": 0}
        self.asked: list[str] = []
        self.meanwhile: Callable[[str], None] = lambda queue: None

    async def ready(self, name: str, queue: str) -> int:
        self.asked.append(name)
        waiting = self.waiting[name]
        self.meanwhile(name)
        return waiting


class Burst:
    """A worker's two lanes in burst mode."""

    def __init__(self) -> None:
        self.emails, self.reports = Lane("emails"), Lane("reports")
        self.session = Session()
        self.stopping = asyncio.Event()
        lanes: Any = [self.emails, self.reports]
        self.chores = Chores(settings_module.load(url="amqp://localhost"), lanes, self.stopping)

    async def rounds(self, count: int = 3) -> bool:
        """Whether it stops within so many looks."""
        session: Any = self.session
        task = asyncio.create_task(self.chores.stop_when_empty(session, self.stopping.set))
        looks = len(self.session.asked) // 2 + count
        await eventually_async(lambda: self.stopping.is_set() or len(self.session.asked) // 2 >= looks)
        task.cancel()
        await asyncio.wait({task})
        return self.stopping.is_set()


@pytest.fixture
async def burst(monkeypatch: pytest.MonkeyPatch) -> Burst:
    monkeypatch.setattr(chores, "IDLE_CHECK", 0.01)
    return Burst()


async def test_burst_stops_when_all_is_empty(burst: Burst) -> None:
    assert await burst.rounds()


async def test_burst_goes_on_while_something_waits_or_runs(burst: Burst) -> None:
    burst.session.waiting["emails"] = 1
    assert not await burst.rounds()

    burst.session.waiting["emails"] = 0
    burst.emails.is_idle = False
    assert not await burst.rounds()


async def test_burst_sees_what_a_job_left_behind_when_it_ended_between_two_looks(burst: Burst) -> None:
    """It had put a copy into its queue after that queue was asked, and the copy is on its way here."""
    burst.emails.is_idle = False

    def end(queue: str) -> None:
        if queue == "reports" and not burst.emails.is_idle:
            burst.emails.is_idle, burst.session.waiting["emails"] = True, 1
            burst.emails.changes += 1

    burst.session.meanwhile = end

    assert not await burst.rounds()


async def test_burst_sees_what_came_and_went_between_two_looks(burst: Burst) -> None:
    """Such as a message that was counted here, whose copy waits now."""

    def come_and_go(queue: str) -> None:
        if queue == "reports":
            burst.emails.changes += 2

    burst.session.meanwhile = come_and_go

    assert not await burst.rounds()


async def test_burst_waits_for_a_queue_that_rests_and_not_for_one_that_an_operator_paused(
    burst: Burst,
) -> None:
    burst.session.waiting["emails"] = 1
    burst.emails.gate.pause(BREAKER, "failures")
    assert not await burst.rounds()

    burst.emails.gate.pause(OPERATOR, "maintenance")
    burst.stopping.clear()
    assert await burst.rounds()


class Looks:
    """How often it was looked, and whether what was seen is told."""

    def __init__(self) -> None:
        self.count = 0
        self.tells = False

    async def look(self, _: object) -> None:
        self.count += 1
        self.tells = True

    def forget(self) -> None:
        self.tells = False


@pytest.mark.parametrize("is_stopping", [True, False], ids=["the worker stops", "the session has ended"])
async def test_queues_are_told_of_only_as_long_as_they_can_be_asked(burst: Burst, is_stopping: bool) -> None:
    looks: Any = Looks()
    looking = asyncio.create_task(burst.chores.look_at_queues(Any, looks))  # type: ignore[arg-type]
    await eventually_async(lambda: looks.count == 1)
    assert looks.tells

    burst.stopping.set() if is_stopping else looking.cancel()

    await asyncio.wait({looking}, timeout=5)
    assert looking.done()
    assert not looks.tells
