"""Children without processes: they start, consume and end when a test says so."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import Metric
from structlog.testing import capture_logs

from brokerjobs.metrics import RESTART_REASONS
from brokerjobs.supervisor import standstill
from brokerjobs.supervisor.recycling import Recycling
from brokerjobs.supervisor.report import Report
from brokerjobs.supervisor.seat import LONGEST_REST, SHORT_LIFE
from brokerjobs.supervisor.supervisor import KILL_PATIENCE, Ending, Heard, Patience, Supervisor
from brokerjobs.totals import Totals
from tests.waiting import eventually_async

JOBS = ("brokerjobs_jobs_finished", "counter", "Jobs.", "sum", [("brokerjobs_jobs_finished_total", (), 7.0)])
SLOTS = ("brokerjobs_worker_slots", "gauge", "Slots.", "sum", [("brokerjobs_worker_slots", (), 10.0)])


class FakeChild:
    def __init__(self, pid: int, heard: Heard, *, obedient: bool) -> None:
        self.pid = pid
        self.report = Report()
        self.told: list[str] = []
        self._heard = heard
        self._obedient = obedient
        self._consumes = asyncio.Event()
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def code(self) -> int | None:
        return self._exit.result() if self._exit.done() else None

    async def ended(self) -> int:
        return await asyncio.shield(self._exit)

    async def consuming(self) -> bool:
        consumes = asyncio.create_task(self._consumes.wait())
        ended = asyncio.create_task(self.ended())
        await asyncio.wait({consumes, ended}, return_when=asyncio.FIRST_COMPLETED)
        consumes.cancel()
        ended.cancel()
        return self._consumes.is_set()

    def drain(self) -> None:
        self.told.append("drain")
        if self._obedient:
            self.end(0)

    def kill(self) -> None:
        self.told.append("kill")
        self.end(-signal.SIGKILL)

    def end(self, code: int) -> None:
        if not self._exit.done():
            self._exit.set_result(code)

    def say(self, **fields: Any) -> None:
        self.report = Report(consuming=True, **fields)
        self._consumes.set()
        self._heard(self, self.report)


class Nursery:
    """Starts fake children, and keeps them in the order in which they came."""

    def __init__(self) -> None:
        self.children: list[FakeChild] = []
        self.rests: list[float] = []
        self.now = 1000.0
        self.errors: list[OSError] = []
        self.obedient = True
        self.came = asyncio.Event()

    def start(self, heard: Heard) -> FakeChild:
        if self.errors:
            raise self.errors.pop()
        self.came.set()
        self.children.append(FakeChild(len(self.children), heard, obedient=self.obedient))
        return self.children[-1]

    async def rest(self, seconds: float) -> None:
        self.rests.append(seconds)
        await asyncio.sleep(0)  # noqa: TID251  (others may run)

    async def child(self, number: int) -> FakeChild:
        """The child of this number, once it is there."""
        while len(self.children) <= number:
            self.came.clear()
            await asyncio.wait_for(self.came.wait(), 5)
        return self.children[number]

    async def consuming(self, number: int) -> FakeChild:
        """The child of this number, consuming."""
        child = await self.child(number)
        child.say()
        return child

    def supervisor(self, count: int = 1, **options: Any) -> Supervisor:
        given: dict[str, Any] = {
            "recycling": Recycling(),
            "patience": Patience(start=60, drain=60),
            "clock": lambda: self.now,
            "pause": self.rest,
            **options,
        }
        return Supervisor(self.start, count, **given)

    @property
    def living(self) -> list[int]:
        return [child.pid for child in self.children if child.code is None]


@pytest.fixture
def nursery() -> Nursery:
    return Nursery()


@asynccontextmanager
async def running(supervisor: Supervisor) -> AsyncIterator[asyncio.Task[Ending]]:
    task = asyncio.create_task(supervisor.run())
    try:
        yield task
    finally:
        supervisor.kill()
        await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 5)


async def settled() -> None:
    """Let everything that can run now run."""
    for _ in range(50):
        await asyncio.sleep(0)  # noqa: TID251


# -- the start


async def test_the_others_start_once_the_first_consumes(nursery: Nursery) -> None:
    supervisor = nursery.supervisor(3)
    async with running(supervisor) as run:
        await nursery.child(0)
        await settled()
        assert nursery.living == [0]
        nursery.children[0].say()
        await nursery.child(2)
        assert nursery.living == [0, 1, 2]
        supervisor.stop()
        assert await run == Ending()


@pytest.mark.parametrize("code", [1, 69, 78])
async def test_first_child_that_never_consumes_ends_all_with_its_exit_code(
    nursery: Nursery, code: int
) -> None:
    async with running(nursery.supervisor(3)) as run:
        (await nursery.child(0)).end(code)
        assert (await run).code == code
        assert (len(nursery.children), nursery.rests) == (1, [])


async def test_first_child_that_is_killed_is_tried_again(nursery: Nursery) -> None:
    """The system may have been short of memory: that says nothing about the configuration."""
    async with running(nursery.supervisor()) as run:
        (await nursery.child(0)).end(-signal.SIGKILL)
        await nursery.child(1)
        assert not run.done()


async def test_later_configuration_error_ends_nobody(nursery: Nursery) -> None:
    async with running(nursery.supervisor(2)) as run:
        await nursery.consuming(0)
        (await nursery.consuming(1)).end(78)
        (await nursery.child(2)).end(78)
        await nursery.child(3)
        assert not run.done()
        assert nursery.living == [0, 3]


async def test_child_that_cannot_be_started_is_tried_again_after_a_rest(nursery: Nursery) -> None:
    nursery.errors = [OSError("no more processes")] * 3
    async with running(nursery.supervisor()):
        await nursery.child(0)
        assert len(nursery.rests) == 3
        assert all(rest > 0 for rest in nursery.rests)


# -- restarts


async def test_a_long_life_is_followed_at_once(nursery: Nursery) -> None:
    async with running(nursery.supervisor()):
        for number in range(3):
            child = await nursery.consuming(number)
            nursery.now += SHORT_LIFE
            child.end(-signal.SIGSEGV)
        await nursery.child(3)
        assert nursery.rests == [0, 0, 0]


async def test_short_lives_are_followed_after_longer_and_longer_rests(nursery: Nursery) -> None:
    async with running(nursery.supervisor()):
        for number in range(14):
            (await nursery.consuming(number)).end(1)
        await nursery.child(14)
        rests = nursery.rests
        assert 0.1 <= rests[0] <= 0.2
        assert all(later > earlier for earlier, later in zip(rests[:8:2], rests[2:9:2], strict=True))
        assert all(LONGEST_REST / 2 <= rest <= LONGEST_REST for rest in rests[9:])
        assert len(set(rests)) == 14, "jitter"

        nursery.now += SHORT_LIFE
        nursery.children[14].end(1)
        (await nursery.child(15)).end(1)
        await nursery.child(16)
        assert nursery.rests[14] == 0
        assert nursery.rests[15] <= 0.2, "forgotten after a long life"


# -- recycling


@pytest.mark.parametrize(
    ("recycling", "report", "reason"),
    [
        (Recycling(jobs=100), {"finished": 100}, "jobs"),
        (Recycling(memory=1000), {"memory": 1000}, "memory"),
        (Recycling(threads=2), {"abandoned": 2}, "threads"),
    ],
)
async def test_child_beyond_a_limit_drains_once_another_consumes(
    nursery: Nursery, recycling: Recycling, report: dict[str, int], reason: str
) -> None:
    totals = Totals()
    async with running(nursery.supervisor(2, recycling=recycling, totals=totals)):
        old, other = await nursery.consuming(0), await nursery.consuming(1)
        old.say(**{name: value - 1 for name, value in report.items()})
        await settled()
        assert len(nursery.children) == 2
        old.say(**report)
        new = await nursery.child(2)
        await settled()
        assert (old.told, new.code) == ([], None), "not before the new one consumes"
        new.say()
        await settled()
        assert (old.told, new.told, other.told) == (["drain"], [], [])
        assert restarts(totals) == {**dict.fromkeys(RESTART_REASONS, 0), reason: 1}


async def test_one_at_a_time_is_recycled_to_its_end(nursery: Nursery) -> None:
    nursery.obedient = False
    async with running(nursery.supervisor(2, recycling=Recycling(jobs=10))):
        first, second = await nursery.consuming(0), await nursery.consuming(1)
        for child in first, second:
            child.say(finished=10)
            await settled()
        await nursery.consuming(2)
        await settled()
        assert (first.told, len(nursery.children)) == (["drain"], 3)
        first.end(0)
        await nursery.consuming(3)
        await settled()
        assert second.told == ["drain"]


async def test_old_child_goes_on_where_the_new_one_does_not_come_to_consume(nursery: Nursery) -> None:
    with capture_logs() as log:
        async with running(nursery.supervisor(recycling=Recycling(jobs=10))):
            old = await nursery.consuming(0)
            old.say(finished=10)
            (await nursery.child(1)).end(78)
            await settled()
            assert (old.told, nursery.living) == ([], [0])
            old.say(finished=11)
            await settled()
            assert len(nursery.children) == 2, "not again at once"
            nursery.now += 1
            old.say(finished=12)
            await nursery.consuming(2)
            await settled()
            assert nursery.living == [2]
    assert [line["pid"] for line in log if line["event"] == "child not replaced"] == [0]


async def test_new_child_that_hangs_is_killed(nursery: Nursery) -> None:
    async with running(
        nursery.supervisor(recycling=Recycling(jobs=10), patience=Patience(start=0.01, drain=60))
    ):
        old = await nursery.consuming(0)
        old.say(finished=10)
        new = await nursery.child(1)
        await eventually_async(lambda: new.told == ["kill"], timeout=5)
        assert old.told == []


async def test_child_recycled_again_and_again_rests_in_between(nursery: Nursery) -> None:
    """A memory limit below what a child needs at its start must not keep the machine busy starting."""
    async with running(nursery.supervisor(recycling=Recycling(memory=10))):
        await nursery.child(0)
        for _ in range(4):
            for child in list(nursery.children):
                child.say(memory=10)
                await settled()
        assert len(nursery.children) == 2
        nursery.now += 0.2
        nursery.children[1].say(memory=10)
        await nursery.child(2)


async def test_child_that_crashes_while_its_successor_starts_is_followed_by_that(nursery: Nursery) -> None:
    async with running(nursery.supervisor(recycling=Recycling(jobs=10))):
        old = await nursery.consuming(0)
        old.say(finished=10)
        await nursery.child(1)
        old.end(-signal.SIGSEGV)
        await settled()
        nursery.children[1].say()
        await settled()
        assert nursery.living == [1]
        assert len(nursery.children) == 2


# -- rolling restart


async def test_rolling_restart_replaces_one_after_another(nursery: Nursery) -> None:
    nursery.obedient = False
    supervisor = nursery.supervisor(3)
    with capture_logs() as log:
        async with running(supervisor):
            for number in range(3):
                await nursery.consuming(number)
            supervisor.roll()
            for number in range(3):
                old = nursery.children[number]
                new = await nursery.child(3 + number)
                await settled()
                assert (old.told, len(nursery.children)) == ([], 4 + number)
                new.say()
                await settled()
                assert (old.told, len(nursery.children)) == (["drain"], 4 + number)
                old.end(0)
            await settled()
            assert nursery.living == [3, 4, 5]
            assert "rolling restart done" in [line["event"] for line in log]


async def test_rolling_restart_stops_at_the_first_that_does_not_consume(nursery: Nursery) -> None:
    supervisor = nursery.supervisor(3)
    with capture_logs() as log:
        async with running(supervisor) as run:
            for number in range(3):
                await nursery.consuming(number)
            supervisor.roll()
            (await nursery.child(3)).end(78)
            await settled()
            assert nursery.living == [0, 1, 2]
            assert not run.done()
            assert "rolling restart given up" in [line["event"] for line in log]

            supervisor.roll()  # mended
            for number in range(4, 7):
                await nursery.consuming(number)
            await settled()
            assert nursery.living == [4, 5, 6]


async def test_second_hangup_rolls_once_more(nursery: Nursery) -> None:
    """Children that the first has already replaced may have been started too early."""
    supervisor = nursery.supervisor(2)
    async with running(supervisor):
        for number in range(2):
            await nursery.consuming(number)
        supervisor.roll()
        await nursery.child(2)
        supervisor.roll()
        supervisor.roll()
        for number in range(2, 6):
            await nursery.consuming(number)
        await settled()
        assert nursery.living == [4, 5]
        assert len(nursery.children) == 6


# -- the end


async def test_stop_drains_all_and_starts_nobody(nursery: Nursery) -> None:
    nursery.obedient = False
    supervisor = nursery.supervisor(2, recycling=Recycling(jobs=10))
    async with running(supervisor) as run:
        for number in range(2):
            await nursery.consuming(number)
        nursery.children[0].say(finished=10)
        await nursery.child(2)  # on its way to replace the first
        supervisor.stop()
        supervisor.roll()
        await settled()
        assert [child.told for child in nursery.children] == [["drain"]] * 3
        for child in nursery.children:
            child.end(0)
        assert await run == Ending()
        assert len(nursery.children) == 3


async def test_one_that_was_being_replaced_may_finish_too(nursery: Nursery) -> None:
    nursery.obedient = False
    supervisor = nursery.supervisor(recycling=Recycling(jobs=10))
    async with running(supervisor) as run:
        (await nursery.consuming(0)).say(finished=10)
        await nursery.consuming(1)
        await settled()
        supervisor.stop()
        await settled()
        nursery.children[1].end(0)
        await settled()
        assert not run.done()
        nursery.children[0].end(0)
        assert await run == Ending()


async def test_stop_during_a_rest_waits_for_nothing(nursery: Nursery) -> None:
    async def for_ever(_: float) -> None:
        await asyncio.Event().wait()

    supervisor = nursery.supervisor(pause=for_ever)
    async with running(supervisor) as run:
        (await nursery.consuming(0)).end(1)
        await settled()
        supervisor.stop()
        assert await asyncio.wait_for(run, 5) == Ending()


@pytest.mark.parametrize(
    ("code", "cut_off"),
    [(0, 0), (-signal.SIGTERM, 0), (75, 1), (1, 1), (-signal.SIGSEGV, 1)],
    ids=["drained", "told before it listened", "gave jobs back", "failed", "crashed"],
)
async def test_children_that_end_badly_when_told_are_counted(
    nursery: Nursery, code: int, cut_off: int
) -> None:
    nursery.obedient = False
    supervisor = nursery.supervisor(2)
    async with running(supervisor) as run:
        for number in range(2):
            await nursery.consuming(number)
        supervisor.stop()
        await settled()
        nursery.children[0].end(0)
        nursery.children[1].end(code)
        assert await run == Ending(cut_off=cut_off)


async def test_child_that_does_not_drain_in_time_is_killed(nursery: Nursery) -> None:
    nursery.obedient = False
    supervisor = nursery.supervisor(2, patience=Patience(start=60, drain=0.5))
    async with running(supervisor) as run:
        quick, stuck = await nursery.consuming(0), await nursery.consuming(1)
        supervisor.stop()
        await settled()
        quick.end(0)
        assert await run == Ending(cut_off=1)
        assert (quick.told, stuck.told) == (["drain"], ["drain", "kill"])


async def test_replaced_child_that_does_not_drain_in_time_is_killed(nursery: Nursery) -> None:
    nursery.obedient = False
    supervisor = nursery.supervisor(recycling=Recycling(jobs=10), patience=Patience(start=60, drain=0.01))
    async with running(supervisor):
        old = await nursery.consuming(0)
        old.say(finished=10)
        await nursery.consuming(1)
        await eventually_async(lambda: old.told == ["drain", "kill"], timeout=5)


class Talkative(FakeChild):
    """Has a new report whenever somebody looks."""

    still = 0.0

    @property
    def report(self) -> Report:
        return Report(consuming=True, status={"stands_still": self.still})

    @report.setter
    def report(self, value: Report) -> None: ...


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standstill, "LOOK", 0.02)


IMPATIENT = Patience(start=60, drain=60, still=0.04)


def said_of(child: FakeChild, lines: Sequence[Any]) -> list[str]:
    return [str(line["event"]) for line in lines if line.get("pid") == child.pid]


@pytest.mark.usefixtures("quick_looks")
async def test_child_that_says_nothing_any_more_is_killed_and_followed(nursery: Nursery) -> None:
    supervisor = nursery.supervisor(2, patience=IMPATIENT)
    with capture_logs() as lines:
        async with running(supervisor):
            frozen, other = await nursery.consuming(0), await nursery.child(1)
            other.__class__ = Talkative
            other.say()
            await nursery.child(2)
            assert (frozen.told, other.told) == (["kill"], [])
    assert said_of(frozen, lines) == [
        "child started",
        "child consuming",
        "child silent",
        "child killed",
        "child ended",
    ]


@pytest.mark.usefixtures("quick_looks")
async def test_child_that_is_frozen_before_it_says_anything_is_killed_too(nursery: Nursery) -> None:
    with capture_logs() as lines:
        async with running(nursery.supervisor(patience=IMPATIENT)):
            frozen = await nursery.child(0)
            await nursery.child(1)
    assert said_of(frozen, lines) == ["child started", "child silent", "child killed", "child ended"]


@pytest.mark.usefixtures("quick_looks")
async def test_child_that_tells_of_an_event_loop_that_stands_still_is_killed_and_followed(
    nursery: Nursery,
) -> None:
    with capture_logs() as lines:
        async with running(nursery.supervisor(2, patience=IMPATIENT)):
            blocked, slow = await nursery.consuming(0), await nursery.child(1)
            blocked.__class__ = slow.__class__ = Talkative
            blocked.still, slow.still = 0.04, 0.039  # type: ignore[attr-defined]
            slow.say()
            await nursery.child(2)
            assert (blocked.told, slow.told) == (["kill"], [])
    assert said_of(blocked, lines) == ["child started", "child consuming", "child killed", "child ended"]
    (why,) = [line["hint"] for line in lines if line["event"] == "child killed" and line["pid"] == 0]
    assert why == "its event loop has stood still for 0 s: a job blocks it"


class Scripted:
    """A process that tells at each look for how long it has stood still; it ends when it is killed."""

    pid = 7

    def __init__(self, still: Sequence[float], consuming: bool) -> None:
        self._still = still
        self._consuming = consuming
        self._killed = asyncio.Event()
        self.looks = 0

    @property
    def report(self) -> Report:
        still = self._still[min(self.looks, len(self._still)) - 1]
        return Report(consuming=self._consuming, status={"stands_still": still * standstill.LOOK})

    async def ended(self) -> int:
        self.looks += 1
        await self._killed.wait()
        return -signal.SIGKILL

    def kill(self) -> None:
        self._killed.set()


@pytest.mark.usefixtures("quick_looks")
@pytest.mark.parametrize(
    ("still", "consuming", "looks"),
    [
        ([0.01, 5, 0.01], True, None),  # all were frozen, and it was the first that could tell of it
        ([0.01, 1.99, 1.99, 0.01], True, None),
        ([0.6, 1.6, 2.6], True, 3),
        ([1.0, 2.0], True, 2),
        ([5, 6], True, 2),
        ([5, 6], False, None),  # a start-up hook loads for long
    ],
)
async def test_child_is_killed_that_has_stood_still_for_long_with_jobs_of_others(
    still: list[float], consuming: bool, looks: int | None
) -> None:
    child: Any = Scripted(still, consuming)
    guarding = asyncio.create_task(standstill.guard(child, 0.04))
    await eventually_async(lambda: child.looks > 6 or guarding.done())
    assert (child.looks - 1 if guarding.done() else None) == looks
    guarding.cancel()
    await asyncio.wait({guarding})


@pytest.mark.parametrize(("heartbeat", "seconds"), [(10, 120.0), (40, 120.0), (60, 180.0), (600, 1800.0)])
def test_nobody_is_killed_whose_jobs_rabbitmq_has_not_given_to_others(heartbeat: int, seconds: float) -> None:
    assert standstill.patience(heartbeat) == seconds


async def test_parent_waits_for_longer_than_it_takes_to_notice_a_child_that_stands_still(
    nursery: Nursery,
) -> None:
    """Or whoever watches the parent would end it, and all of its children, for one."""
    supervisor = nursery.supervisor(2)
    assert not supervisor.health().begun
    async with running(supervisor):
        await nursery.child(0)
        await settled()
        assert not supervisor.health().begun
        (await nursery.consuming(0)).say(status={"stands_still": standstill.PATIENCE})
        await nursery.child(1)
        assert supervisor.health().begun

        nursery.now += standstill.LOOK
        assert supervisor.health().stuck == []
        nursery.now += KILL_PATIENCE + 1
        assert supervisor.health().stuck == ["process 0: its event loop has stood still for 191 s"]


async def test_second_signal_kills_at_once(nursery: Nursery) -> None:
    nursery.obedient = False
    supervisor = nursery.supervisor(2)
    async with running(supervisor) as run:
        for number in range(2):
            await nursery.consuming(number)
        supervisor.stop()
        await settled()
        supervisor.kill()
        assert (await run).at_once
        assert [child.told for child in nursery.children] == [["drain", "kill"]] * 2


async def test_burst_ends_with_the_last_child(nursery: Nursery) -> None:
    async with running(nursery.supervisor(3, burst=True)) as run:
        await nursery.consuming(0)
        await nursery.child(2)
        nursery.children[0].end(0)
        nursery.children[1].end(-signal.SIGKILL)  # its jobs went back: somebody has to run them
        nursery.children[2].end(0)
        (await nursery.child(3)).end(0)
        assert await run == Ending()
        assert len(nursery.children) == 4


async def test_burst_whose_first_child_ends_unheard_still_starts_the_others(nursery: Nursery) -> None:
    async with running(nursery.supervisor(2, burst=True)) as run:
        for number in range(2):
            (await nursery.child(number)).end(0)
        assert await run == Ending()


async def test_without_burst_a_child_that_ends_well_is_followed(nursery: Nursery) -> None:
    async with running(nursery.supervisor()):
        (await nursery.consuming(0)).end(0)
        await nursery.child(1)


# -- what it tells


def restarts(totals: Totals) -> dict[str, float]:
    return {
        sample.labels["reason"]: sample.value
        for sample in samples(totals.collect())
        if sample.name == "brokerjobs_process_restarts_total"
    }


def samples(families: Any) -> Sequence[Any]:
    return [sample for family in families if isinstance(family, Metric) for sample in family.samples]


def finished(totals: Totals) -> float:
    return sum(float(sample.value) for sample in samples(totals.collect()) if "finished" in sample.name)


async def test_restarts_are_counted_and_counts_outlive_children(nursery: Nursery) -> None:
    totals = Totals()
    async with running(nursery.supervisor(totals=totals)):
        assert restarts(totals) == dict.fromkeys(RESTART_REASONS, 0)
        child = await nursery.child(0)
        child.say(metrics=[JOBS, SLOTS])
        child.end(1)
        child = await nursery.child(1)
        child.say(metrics=[JOBS, SLOTS])
        await settled()
        assert [s.value for s in samples(totals.collect()) if "slots" in s.name] == [10]
        child.end(-signal.SIGKILL)
        await nursery.child(2)
        assert restarts(totals) == {**dict.fromkeys(RESTART_REASONS, 0), "exit": 1, "signal": 1}
        assert finished(totals) == 14


@pytest.mark.parametrize(
    ("code", "field", "level"),
    [
        (0, {"code": 0}, "info"),
        (76, {"code": 76}, "warning"),
        (-signal.SIGKILL, {"signal": "SIGKILL"}, "warning"),
    ],
)
async def test_end_of_a_child_is_said_with_all_that_is_known(
    nursery: Nursery, code: int, field: dict[str, object], level: str
) -> None:
    with capture_logs() as log:
        async with running(nursery.supervisor()):
            child = await nursery.child(0)
            child.say(finished=5, running=2)
            await settled()
            child.end(code)
            await settled()
            await nursery.child(1)
    assert [line["event"] for line in log[:4]] == [
        "child started",
        "child consuming",
        "child ended",
        "child restarting",
    ]
    assert (
        log[2] == {"event": "child ended", "log_level": level, "pid": 0, "finished": 5, "running": 2} | field
    )


async def test_defect_of_ours_drains_and_is_raised(nursery: Nursery) -> None:
    async def broken(_: float) -> None:
        raise ZeroDivisionError

    async with running(nursery.supervisor(2, pause=broken)) as run:
        first, second = await nursery.consuming(0), await nursery.consuming(1)
        second.end(1)
        with pytest.raises(ExceptionGroup):
            await asyncio.wait_for(run, 5)
        assert first.told == ["drain"]
