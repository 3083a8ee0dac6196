"""`consume --processes`: this process supervises, its children are the workers."""

from __future__ import annotations

import asyncio
import functools
import signal
import sys
from collections.abc import Callable

from brokerjobs import __version__
from brokerjobs.cli.answering import answering
from brokerjobs.cli.exits import DONE, DRAIN_TIMEOUT, INTERRUPTED
from brokerjobs.cli.signals import UNFINISHED, on_signals
from brokerjobs.logs import log
from brokerjobs.settings import Settings
from brokerjobs.supervisor import standstill
from brokerjobs.supervisor.child import GRACE, Child
from brokerjobs.supervisor.nursery import Nursery
from brokerjobs.supervisor.recycling import Recycling
from brokerjobs.supervisor.supervisor import Ending, Patience, Supervisor
from brokerjobs.totals import Totals
from brokerjobs.vitals import Vitals

START_GRACE = 120.0  # seconds beyond the start timeout until a replacement consumes: imports, start-up hooks


def supervise(chosen: Settings, *, burst: bool, start_timeout: float) -> int:
    """Supervise workers that are started by this very command; gives the exit code."""
    return asyncio.run(_supervise(chosen, burst, start_timeout))


async def _supervise(chosen: Settings, burst: bool, start_timeout: float) -> int:
    totals = Totals()
    command = [sys.executable, "-m", "brokerjobs", *sys.argv[1:]]
    nursery = Nursery(command) if chosen.processes > 1 else None
    supervisor = Supervisor(
        functools.partial(Child, command, nursery=nursery),
        chosen.processes,
        recycling=Recycling(chosen.recycle_jobs, chosen.recycle_memory, chosen.recycle_threads),
        patience=Patience(
            start=start_timeout + START_GRACE,
            drain=chosen.drain_timeout + GRACE,
            still=standstill.patience(chosen.heartbeat),
        ),
        burst=burst,
        totals=totals,
    )
    with answering(chosen, Vitals(supervisor.health, __version__), totals):
        loop = asyncio.get_running_loop()
        on_signals(supervisor.stop, lambda: loop.call_soon_threadsafe(supervisor.kill))
        loop.add_signal_handler(signal.SIGHUP, _roll_unless_hung_up(supervisor))
        log.info("supervising", processes=chosen.processes)
        try:
            return _exit_code(await supervisor.run())
        finally:
            if nursery is not None:
                nursery.close()


def _roll_unless_hung_up(supervisor: Supervisor) -> Callable[[], None]:
    """SIGHUP replaces all children; where a terminal has gone with it, nobody is left to stop them later."""
    had_terminal = sys.stderr.isatty()
    return lambda: supervisor.stop() if had_terminal and not sys.stderr.isatty() else supervisor.roll()


def _exit_code(ending: Ending) -> int:
    if ending.at_once:
        log.warning("ended at once", hint=UNFINISHED)
        return INTERRUPTED
    return ending.code or (DRAIN_TIMEOUT if ending.cut_off else DONE)
