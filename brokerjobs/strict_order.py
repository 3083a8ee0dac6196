"""Strict order between queues: a lower one starts a job only while all before it are empty.

A queue whose deliveries have all started is not yet empty: its next one may be on the way. So before a lower queue
takes a free slot, the broker is asked how much waits in the higher one, on the channel of its consumer, where the
answer comes after all deliveries that were sent before. The answer holds until something of that queue arrives or ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from brokerjobs.amqp.connection import LOST
from brokerjobs.lane import Lane

LOOK_AGAIN = 0.05  # seconds, while messages wait that go to somebody else

Ready = Callable[[Lane], Awaitable[int]]


class StrictOrder:
    """Starts what may start.

    Args:
        lanes: the highest first; they share their slots.
        prefetch: how many deliveries each may hold.
        ready: asks the broker how many messages wait in a lane's queue.
        again: called when an answer has come: start what may start now.
    """

    def __init__(
        self, lanes: Sequence[Lane], prefetch: Callable[[Lane], int], ready: Ready, again: Callable[[], None]
    ) -> None:
        self._lanes = lanes
        self._prefetch = prefetch
        self._ready = ready
        self._again = again
        self._empty_at: dict[Lane, int] = {}
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start jobs of the first queue that has any, as far as slots are free; look before going further down."""
        for position, lane in enumerate(self._lanes):
            lane.start()
            if not lane.has_free_slot or not any(lower.has_waiting for lower in self._lanes[position + 1 :]):
                return
            if self._may_bring_more(lane):
                if self._looking is None:
                    self._looking = asyncio.create_task(self._look(lane))
                return

    def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()

    def _may_bring_more(self, lane: Lane) -> bool:
        if lane.gate.is_paused:
            return False
        return lane.held < self._prefetch(lane) and self._empty_at.get(lane) != lane.changes

    async def _look(self, lane: Lane) -> None:
        try:
            while self._may_bring_more(lane):
                before = lane.changes
                waiting = await self._ready(lane)
                if lane.changes == before and not waiting:
                    self._empty_at[lane] = before
                elif lane.changes == before:
                    await asyncio.sleep(LOOK_AGAIN)  # noqa: TID251  (no event tells that another worker took it)
        except LOST:
            return  # the next session's deliveries start anew
        finally:
            self._looking = None
        self._again()
