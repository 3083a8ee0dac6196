"""Acknowledge together what was settled in one turn of the event loop.

One frame can acknowledge all deliveries of a channel up to its tag (`multiple`, AMQP 0-9-1, 1.8.3.13), the running ones
too. So only an unbroken row is acknowledged like that: each tag in it was settled here, whatever runs lies beyond it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from brokerjobs.amqp.frames import write_ack, write_requeue


class Acks:
    """What was settled on one channel, whose tags RabbitMQ counts from 1.

    Args:
        channel: its number.
        write: sends bytes.
        together: False sends a frame for each.
    """

    __slots__ = (
        "_beyond",
        "_channel",
        "_is_closed",
        "_is_due",
        "_lowest",
        "_pending",
        "_together",
        "_write",
    )

    def __init__(self, channel: int, write: Callable[[bytes], object], *, together: bool = True) -> None:
        self._channel = channel
        self._write = write
        self._together = together
        self._pending: list[int] = []
        self._is_due = False
        self._is_closed = False
        self._lowest = 1  # of those that are not settled
        self._beyond: set[int] = set()  # settled, with unsettled ones before them

    def ack(self, tag: int) -> None:
        """Acknowledge this delivery at the end of the turn."""
        self._pending.append(tag)
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self.flush)

    def requeue(self, tag: int) -> None:
        """Give this delivery back, at once."""
        if not self._is_closed:
            self._write(write_requeue(self._channel, tag))
            self._settle(tag)

    def flush(self) -> None:
        """Send what is pending."""
        self._is_due = False
        pending, self._pending = self._pending, []
        if self._is_closed or not pending:
            return
        if self._together:
            pending.sort()
            self._write(b"".join(self._frames(pending)))
        else:
            self._write(b"".join([write_ack(self._channel, tag) for tag in pending]))

    def close(self) -> None:
        """Send nothing more: a frame to a closed channel would end the connection."""
        self._is_closed = True

    def _frames(self, pending: list[int]) -> list[bytes]:
        row = 0  # how many of them go with the unbroken row
        for tag in pending:
            is_next = tag == self._lowest
            self._settle(tag)
            if not is_next:
                break
            row += 1
        frames = []
        if row:
            frames.append(write_ack(self._channel, pending[row - 1], multiple=row > 1))
        for tag in pending[row:]:
            self._settle(tag)
            frames.append(write_ack(self._channel, tag))
        return frames

    def _settle(self, tag: int) -> None:
        if tag != self._lowest:
            if tag > self._lowest:
                self._beyond.add(tag)
            return
        self._lowest += 1
        while self._lowest in self._beyond:
            self._beyond.remove(self._lowest)
            self._lowest += 1
