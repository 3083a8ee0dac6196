"""Deadlines of many that have the same timeout, watched by one timer.

A timer for each costs about as much as to start a job; and nearly all of them are cancelled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Deadlines:
    """Calls back each that has not ended in time.

    Whoever began first expires first, so the timer waits for that one alone; when it fires and that one has ended
    meanwhile, it is set for the next.

    Args:
        timeout: seconds.
        loop: the one that runs.
    """

    def __init__(self, timeout: float, loop: asyncio.AbstractEventLoop) -> None:
        self._timeout = timeout
        self._loop = loop
        self._ends: dict[Callable[[], None], float] = {}  # by `time.monotonic()`, the next one first
        self._is_armed = False

    def begin(self, expire: Callable[[], None]) -> None:
        """Call this back after the timeout, unless `end` comes before."""
        self._ends[expire] = time.monotonic() + self._timeout
        if not self._is_armed:
            self._arm(self._timeout)

    def end(self, expire: Callable[[], None]) -> None:
        """It has ended, or was called back."""
        self._ends.pop(expire, None)

    def _arm(self, seconds: float) -> None:
        self._is_armed = True
        self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        self._is_armed = False
        now, late = time.monotonic(), []
        for expire, end in self._ends.items():
            if end > now:
                self._arm(end - now)
                break
            late.append(expire)
        for expire in late:
            del self._ends[expire]
            expire()
