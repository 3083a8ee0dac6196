"""The vital signs of this process: whether its event loop turns, whether it is ready, and what it does.

The loop beats once a second. Who asks is another thread, so it has an answer while a job blocks the loop, too.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from brokerjobs.health import STILL, Health

BEAT = 1.0  # seconds


class Vitals:
    """Asked from any thread.

    Args:
        ask: how the process does, by its own account.
        version: of brokerjobs.
        clock: seconds that only grow.
    """

    def __init__(
        self, ask: Callable[[], Health], version: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.health = ask
        self._version = version
        self._clock = clock
        self._beaten = clock()
        self._since = time.time()
        self._timer: asyncio.TimerHandle | None = None

    def beat(self) -> None:
        """The event loop turns."""
        self._beaten = self._clock()

    def begin(self, told: Callable[[], object] = lambda: None, every: float = BEAT) -> None:
        """Beat with the running loop from now on.

        Args:
            told: called on the loop after each beat.
            every: seconds between two beats.
        """
        loop = asyncio.get_running_loop()

        def turn() -> None:
            self._timer = loop.call_later(every, turn)
            self.beat()
            told()

        turn()

    def end(self) -> None:
        """Beat no more."""
        if self._timer is not None:
            self._timer.cancel()

    @property
    def stands_still(self) -> float:
        """Seconds since the last beat."""
        return self._clock() - self._beaten

    @property
    def not_live(self) -> list[str]:
        """Why it is not live."""
        still = self.stands_still
        if still <= STILL:
            return self.health().stuck
        since = datetime.fromtimestamp(time.time() - still, UTC)
        return [f"the event loop stands still since {since:%H:%M:%S} UTC, for {still:.0f} s: a job blocks it"]

    @property
    def not_ready(self) -> list[str]:
        """Why it is not ready."""
        return [*self.not_live, *self.health().hindrances]

    @property
    def status(self) -> dict[str, Any]:
        """All of it, for JSON."""
        health, not_live = self.health(), self.not_live
        reasons = [*not_live, *health.hindrances]
        return {
            "version": self._version,
            "pid": os.getpid(),
            "since": datetime.fromtimestamp(self._since, UTC).isoformat(timespec="seconds"),
            "live": not not_live,
            "ready": not reasons,
            "reasons": reasons,
            "remarks": health.remarks,
            "draining": health.draining,
            "stands_still": round(self.stands_still, 1),
            **health.details,
        }
