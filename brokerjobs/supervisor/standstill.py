"""A child that stands still: it is frozen, or a job blocks its event loop. RabbitMQ takes it for gone, and so do we."""

from __future__ import annotations

import asyncio

from brokerjobs.logs import log
from brokerjobs.supervisor.seat import Process

LOOK = 60.0  # seconds between two looks at a child, which tells of itself each second
PATIENCE = 2 * LOOK  # seconds that a child may stand still


def patience(heartbeat: float) -> float:
    """Seconds that a child may stand still: RabbitMQ has given its jobs to others by then, after three heartbeats."""
    return max(PATIENCE, 3.0 * heartbeat)


async def guard(child: Process, patience: float) -> None:
    """Kill it when it has stood still for so many seconds, and by the next look at the latest, until it has ended.

    Nobody has its jobs before it consumes, so its start-up hooks may block its loop; but it says so.
    """
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
        still = silence + child.report.stands_still if child.report.consuming else 0.0
        if silence >= patience:
            kill(child, f"it has said nothing for {silence:g} s")
        elif still >= patience and stood_still:
            kill(child, f"its event loop has stood still for {still:.0f} s: a job blocks it")
        elif silence:
            log.warning("child silent", pid=child.pid, seconds=silence)


def kill(child: Process, why: str) -> None:
    """End it at once, and say why."""
    log.warning("child killed", pid=child.pid, hint=why)
    child.kill()
