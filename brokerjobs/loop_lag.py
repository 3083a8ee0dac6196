"""How late an event loop is: what should have gone on by now waits for a job that computes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

KEPT = 15  # looks: one may come between two visits of Prometheus


class LoopLag:
    """The most of the last moments, and of this one.

    Args:
        clock: in seconds; it never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = math.inf
        self._late: tuple[float, ...] = ()

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
