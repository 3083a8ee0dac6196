"""How late an event loop is: what should have gone on by now waits for a job that computes."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

from brokerjobs.logs import log

LOOK = 1.0  # seconds between two looks
MOST = 1.0  # seconds that the loop may be late without a word
KEPT = 15  # looks: one may come between two visits of Prometheus
HINT = "an async job or hook computes or waits without await: make it a plain def"


class LoopLag:
    """The most of the last moments, and of this one.

    Args:
        clock: in seconds; it never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = math.inf
        self._late: tuple[float, ...] = ()

    async def mind(self) -> None:
        """Look each second, until cancelled, and say when a job has held up heartbeats and all other jobs."""
        try:
            while True:
                self.expect(LOOK)
                await asyncio.sleep(LOOK)  # noqa: TID251  (it is the sleep that is measured)
                if (late := self.looked()) > MOST:
                    log.warning("event loop blocked", seconds=round(late, 1), hint=HINT)
        finally:
            self.stop()

    def expect(self, seconds: float) -> None:
        """The loop shall look again after so long."""
        self._due = self._clock() + seconds

    @property
    def is_expecting(self) -> bool:
        """Whether anybody looks."""
        return self._due < math.inf

    def looked(self) -> float:
        """It does; gives by how much it is late."""
        late = self._late_now()
        self._late = (*self._late, late)[-KEPT:]
        return late

    def stop(self) -> None:
        """Nobody looks for a while, so nothing is known."""
        self._due, self._late = math.inf, ()

    def read(self) -> float:
        """Seconds; asked by any thread, so also while the loop cannot answer."""
        return max((*self._late, self._late_now()))

    def _late_now(self) -> float:
        return max(0.0, self._clock() - self._due)
