"""A place for one child: who sits there, how long children last in it, and the wish for another one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Protocol

from brokerjobs.supervisor.report import Report

SHORT_LIFE = 10.0  # seconds: what ends a child this soon may end the next as well
LONGEST_REST = 30.0  # seconds between two short lives

Clock = Callable[[], float]


class Process(Protocol):
    """What a supervisor needs of a child; `child.Child` is the real one."""

    report: Report

    def __hash__(self) -> int: ...
    @property
    def pid(self) -> int: ...
    @property
    def code(self) -> int | None: ...
    async def ended(self) -> int: ...
    async def consuming(self) -> bool: ...
    def drain(self) -> None: ...
    def kill(self) -> None: ...


class Wish:
    """Somebody wants another child in a seat.

    Args:
        reason: why.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.granted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()


class Seat:
    """Has at most one child that is meant to stay.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = 0.0
        self._short_lives = 0
        self._recycle_from = 0.0
        self.child: Process | None = None
        self.wish: Wish | None = None
        self.wished = asyncio.Event()
        self.is_closed = False

    def take(self, child: Process | None) -> None:
        """This child sits here now; None is one that could not be started."""
        self.child, self._began = child, self._clock()

    def leave(self) -> float:
        """Its child's life is over; gives the seconds to rest, with jitter: none after a long life."""
        return self._rest(is_short=self._clock() - self._began < SHORT_LIFE)

    def stay(self) -> None:
        """Its child stays, because another one did not live to take its place."""
        self._rest(is_short=True)

    def _rest(self, *, is_short: bool) -> float:
        self._short_lives = self._short_lives + 1 if is_short else 0
        rest = min(LONGEST_REST, 0.1 * 2.0 ** min(self._short_lives, 10)) if is_short else 0.0
        self._recycle_from = self._clock() + rest
        return rest * random.uniform(0.5, 1.0)

    def recycle(self, reason: str) -> None:
        """Wish for another child, unless that is wished for already or did not help a moment ago."""
        if self.wish is None and self._clock() >= self._recycle_from:
            self._want(reason)

    async def replaced(self, reason: str) -> bool:
        """Wish for another child; gives True once that one consumes, False if it did not come so far."""
        while self.wish is not None:  # one on its way may have been started too early
            await asyncio.wait({self.wish.granted})
        return self.is_closed or await self._want(reason).granted

    def _want(self, reason: str) -> Wish:
        self.wish = Wish(reason)
        self.wished.set()
        return self.wish

    def grant(self, *, granted: bool) -> None:
        """Answer the wish."""
        assert self.wish is not None
        wish, self.wish = self.wish, None
        self.wished.clear()
        if not wish.granted.done():
            wish.granted.set_result(granted)

    def close(self) -> None:
        """No child will sit here any more."""
        self.is_closed = True
        if self.wish is not None:
            self.grant(granted=True)
