"""A child that stands still: it is frozen, or a job blocks its event loop. RabbitMQ takes it for gone, and so do we."""

from __future__ import annotations

import asyncio

from brokerjobs.logs import log
from brokerjobs.supervisor.seat import Process

LOOK = 60.0  # seconds between two looks at a child, which tells of itself each second
PATIENCE = 2 * LOOK  # seconds that a child may stand still
NOTICED = PATIENCE + LOOK  # seconds after which it is killed at the latest


async def guard(child: Process) -> None:
    """Kill it when it stands still, until it has ended: RabbitMQ has given its jobs to others by then."""
    silence = 0.0  # as counted here: who could not be heard, since this process was frozen, is not silent
    still = 0.0
    while True:
        # Who was frozen with this process may tell of it before its loop turns; then it was well at the last look.
        before, stood_still = child.report, still > LOOK / 2
        try:
            async with asyncio.timeout(LOOK):
                await child.ended()
                return
        except TimeoutError:
            silence = silence + LOOK if child.report is before else 0.0
        still = silence + child.report.stands_still
        if silence >= PATIENCE:
            kill(child, f"it has said nothing for {silence:g} s")
        elif still >= PATIENCE and stood_still:
            kill(child, f"its event loop has stood still for {still:.0f} s: a job blocks it")
        elif silence:
            log.warning("child silent", pid=child.pid, seconds=silence)


def kill(child: Process, why: str) -> None:
    """End it at once, and say why."""
    log.warning("child killed", pid=child.pid, hint=why)
    child.kill()
