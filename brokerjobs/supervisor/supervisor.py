"""Keeps a number of worker processes alive until it is told to stop, and replaces them one at a time.

    first child consumes ► the others start ► … one ends: another in its place, after a rest if lives are short
                                              one is to be replaced: another consumes ► the old one drains
                                              stop: all drain, within a deadline

One child at a time is replaced, whatever the reason, so never more than one beyond the number is there.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from brokerjobs.health import ParentHealth
from brokerjobs.logs import log
from brokerjobs.metrics import RESTART_REASONS, Metrics
from brokerjobs.supervisor.recycling import Recycling
from brokerjobs.supervisor.report import Report
from brokerjobs.supervisor.roster import Roster
from brokerjobs.supervisor.seat import Clock, Process, Seat
from brokerjobs.supervisor.standstill import LOOK, PATIENCE, guard, kill
from brokerjobs.totals import Teller, Totals

KILL_PATIENCE = 10.0  # seconds until a killed process is gone

Heard = Callable[[Any, Report], None]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a child may take before it is killed.

    Args:
        start: seconds until a replacement consumes.
        drain: seconds until it has ended, once told to.
        still: seconds that its event loop may stand still, or it may say nothing.
    """

    start: float
    drain: float
    still: float = PATIENCE


@dataclass(frozen=True, slots=True)
class Ending:
    """How it ended.

    Args:
        code: the exit code of the first child if none has ever consumed; 0 otherwise.
        cut_off: children that did not end well when told to drain: jobs of theirs were given back.
        at_once: they were not let finish.
    """

    code: int = 0
    cut_off: int = 0
    at_once: bool = False


class Supervisor:
    """Supervises child processes until `stop`.

    Args:
        start: starts a child that calls what it is given with each report; raises OSError if it cannot.
        count: how many.
        recycling: when a child is replaced.
        patience: how long a child may take.
        burst: children end by themselves; it ends with the last.
        totals: told what children tell, and each restart by its reason.
        clock: seconds that only grow.
        pause: waits so many seconds.
    """

    def __init__(
        self,
        start: Callable[[Heard], Process],
        count: int,
        *,
        recycling: Recycling,
        patience: Patience,
        burst: bool = False,
        totals: Totals | None = None,
        clock: Clock = time.monotonic,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,  # noqa: TID251  (cancelled when it stops)
    ) -> None:
        self._start = start
        self._recycling = recycling
        self._patience = patience
        self._burst = burst
        self._totals = totals or Totals()
        self._pause = pause
        self._seats = [Seat(clock) for _ in range(count)]
        self._watchers: dict[Process, asyncio.Task[None]] = {}
        self._proven = asyncio.Event()  # that a child can consume
        self._stopping = asyncio.Event()
        self._hung_up = asyncio.Event()
        self._at_once = False
        self._code = 0
        self._cut_off = 0
        self._one_at_a_time = asyncio.Lock()
        self._leaving: asyncio.Task[None] | None = None
        self._metrics = Metrics()
        for reason in RESTART_REASONS:
            self._metrics.restarts.labels(reason)
        self._roster = Roster(clock)
        self._teller = Teller(self._metrics.registry)
        self._totals.take(self, self._teller.changes())

    def health(self) -> ParentHealth:
        """How it and its children do; may be asked from any thread."""
        return ParentHealth(
            len(self._seats),
            self._roster.children,
            patience=self._patience.still + LOOK + KILL_PATIENCE,
            begun=self._proven.is_set(),
            draining=self._stopping.is_set(),
        )

    def stop(self) -> None:
        """Let all children drain."""
        self._stopping.set()

    def kill(self) -> None:
        """End all children at once."""
        self._at_once = True
        self._stopping.set()
        for child in self._watchers:
            child.kill()

    def roll(self) -> None:
        """Replace all children, one after another."""
        self._hung_up.set()

    async def run(self) -> Ending:
        """Supervise until stopped, or in burst mode until all children have ended by themselves."""
        kept = asyncio.create_task(self._keep_all())
        rolling = asyncio.create_task(self._roll())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({kept, rolling, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stopping.set()
            for task in (kept, rolling, stopping, *filter(None, [self._leaving])):
                task.cancel()
            results = await asyncio.gather(kept, rolling, return_exceptions=True)
            await self._drain()
        for result in results:
            if isinstance(result, Exception):  # a defect of ours
                raise result
        return Ending(self._code, self._cut_off, self._at_once)

    async def _keep_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for seat in self._seats:
                group.create_task(self._keep(seat))

    # -- one seat

    async def _keep(self, seat: Seat) -> None:
        """Have a child in this seat until it has done its work."""
        if seat is not self._seats[0]:
            await self._proven.wait()  # the first shows whether it can work: one complaint, one declaration
        while True:
            child = self._try_to_start()
            seat.take(child)
            while child is not None and child.code is None:
                child = await self._attend(seat, child)
            if child is not None and self._has_done(child):
                return seat.close()
            await self._rest(seat)

    async def _attend(self, seat: Seat, child: Process) -> Process:
        """Wait for the end of this child, or replace it when that is wished; gives whoever sits there then."""
        await _first(child.ended(), seat.wished.wait())
        if child.code is None:
            async with self._one_at_a_time:
                await self._left()
                if child.code is None:
                    await self._replace(seat, child)
        assert seat.child is not None
        return seat.child

    async def _replace(self, seat: Seat, child: Process) -> None:
        assert seat.wish is not None
        reason = seat.wish.reason
        new = self._try_to_start()
        if new is None or not await self._consumes(new):
            log.error("child not replaced", pid=child.pid, reason=reason, hint="it goes on")
            seat.stay()
            return seat.grant(granted=False)
        log.info("child replaced", pid=child.pid, by=new.pid, reason=reason, finished=child.report.finished,
                 memory=child.report.memory, abandoned=child.report.abandoned)  # fmt: skip
        self._count(reason)
        self._leaving = asyncio.create_task(self._see_off(child))
        seat.leave()
        seat.take(new)
        seat.grant(granted=True)
        return None

    async def _consumes(self, child: Process) -> bool:
        try:
            async with asyncio.timeout(self._patience.start):
                return await child.consuming()
        except TimeoutError:
            kill(child, "it did not consume in time")
            return False

    async def _see_off(self, child: Process) -> None:
        child.drain()
        try:
            async with asyncio.timeout(self._patience.drain):
                await child.ended()
        except TimeoutError:
            kill(child, "it did not end in time; its jobs are delivered again")

    async def _left(self) -> None:
        """Return once the child that was last replaced has ended."""
        if self._leaving is not None:
            await asyncio.wait({self._leaving})

    def _has_done(self, child: Process) -> bool:
        """Whether nobody has to follow a child that has ended by itself."""
        assert child.code is not None
        if child.code == 0 and self._burst:
            self._proven.set()
            return True
        if child.code > 0 and not (self._proven.is_set() or child.report.consuming):
            self._code = child.code
            self.stop()
            return True
        return False

    async def _rest(self, seat: Seat) -> None:
        seconds = seat.leave()
        code = seat.child.code if seat.child is not None else None
        reason = "signal" if code is not None and code < 0 else "exit"
        log.warning("child restarting", after=round(seconds, 1), reason=reason)
        self._count(reason)
        await self._pause(seconds)

    # -- all seats

    async def _roll(self) -> None:
        while await self._hung_up.wait():
            self._hung_up.clear()
            log.info("rolling restart", processes=len(self._seats))
            for seat in self._seats:
                if not await seat.replaced("rolling"):
                    log.error("rolling restart given up", hint="the children that were not replaced go on")
                    break
            else:
                await self._left()
                log.info("rolling restart done")

    async def _drain(self) -> None:
        """Let all end within the deadline; end those that do not."""
        log.info("draining children", children=len(self._watchers), timeout=self._patience.drain)
        for child in self._watchers:
            if self._at_once:
                child.kill()
            else:
                child.drain()
        await self._wait_for_ends(self._patience.drain)
        for child in self._watchers:
            kill(child, "it did not end in time; its jobs are delivered again")
        await self._wait_for_ends(KILL_PATIENCE)
        log.info("children ended", cut_off=self._cut_off)

    async def _wait_for_ends(self, seconds: float) -> None:
        if self._watchers:
            await asyncio.wait(self._watchers.values(), timeout=seconds)

    # -- one child

    def _try_to_start(self) -> Process | None:
        try:
            child = self._start(self._heard)
        except OSError as error:
            log.error("child cannot be started", error=str(error))
            return None
        self._watchers[child] = asyncio.create_task(self._watch(child))
        return child

    async def _watch(self, child: Process) -> None:
        log.info("child started", pid=child.pid)
        self._roster.come(child)
        guarding = asyncio.create_task(guard(child, self._patience.still))
        if await child.consuming():
            log.info("child consuming", pid=child.pid)
            self._proven.set()
        code = await child.ended()
        guarding.cancel()
        del self._watchers[child]
        self._totals.end(child)
        self._roster.gone(child)
        stopped = self._stopping.is_set()
        # One that is told before it listens ends by the signal itself.
        is_well = code == 0 or (stopped and code == -signal.SIGTERM)
        report = child.report
        how = {"signal": signal.Signals(-code).name} if code < 0 else {"code": code}
        fields = {"pid": child.pid, **how, "finished": report.finished, "running": report.running}
        if is_well:
            log.info("child ended", **fields)
        else:
            log.warning("child ended", **fields)
        if stopped and not is_well:
            self._cut_off += 1

    def _heard(self, child: Process, report: Report) -> None:
        self._totals.take(child, report.metrics)
        self._roster.heard(child, report)
        reason = self._recycling.reason(report)
        if reason is not None:
            for seat in self._seats:
                if seat.child is child:
                    seat.recycle(reason)

    def _count(self, reason: str) -> None:
        self._metrics.restarts.labels(reason).inc()
        self._totals.take(self, self._teller.changes())


async def _first(*several: Coroutine[Any, Any, object]) -> None:
    """Wait until one of them has ended; end the others."""
    tasks = [asyncio.create_task(one) for one in several]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
