"""Which messages may have killed a worker.

A worker that dies was running ten jobs, and one of them killed it. RabbitMQ gives all ten to the next worker, which
dies too: so what has come back twice without an answer runs in a child process, where a job that kills takes only
itself. Suspicion condemns nobody: the nine succeed in their children and are done. After a crash of RabbitMQ everything
in a classic queue counts as delivered before, also what never was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum, auto
from typing import Any

from brokerjobs.message import Message
from brokerjobs.outcome import Retried

SUSPICIOUS = 2  # deliveries without an answer

REDELIVERED = "redelivered"
# What becomes of a message that has to be counted: a copy in its own queue, at once.
COUNTED = Retried(delay=0.0, reason=REDELIVERED, spends=False)


class Verdict(Enum):
    """What to do with a delivery."""

    RUN = auto()
    COUNT = auto()  # replace it by a copy that says how often it came back
    ISOLATE = auto()


def judge(message: Message, *, redelivered: bool, counted: bool | None) -> Verdict:
    """Where a message runs.

    Args:
        message: as it was delivered; its run is not known here.
        redelivered: RabbitMQ's flag.
        counted: whether its queue counts deliveries itself; elsewhere the header is what some publisher wrote, or what
            a message that was moved from another queue brought along. None where nobody knows: then the header
            is believed (RabbitMQ 4.0 to 4.2).
    """
    if not (message.headers or message.redeliveries or message.crashes or redelivered):
        return Verdict.RUN
    if counted is None:
        counted = "x-delivery-count" in message.headers
    came_back = max(message.redeliveries, _count_in(message.headers) if counted else 0)
    if message.crashes or came_back >= SUSPICIOUS:
        return Verdict.ISOLATE
    return Verdict.COUNT if redelivered and not counted else Verdict.RUN


def _count_in(headers: Mapping[str, Any]) -> int:
    count = headers.get("x-delivery-count")
    return count if isinstance(count, int) else 0


class Tally:
    """Lets what has been counted wait for what came back with it.

    If the one that kills ran while its neighbours' originals are not yet acknowledged, these would come back beside
    their copies.
    """

    def __init__(self) -> None:
        self._going_on = 0
        self._complete = asyncio.Event()
        self._complete.set()

    @contextmanager
    def counting(self) -> Iterator[None]:
        """One more is being counted within this block."""
        self._going_on += 1
        self._complete.clear()
        try:
            yield
        finally:
            self._going_on -= 1
            if not self._going_on:
                self._complete.set()

    async def complete(self) -> None:
        """Return once nothing is being counted."""
        await self._complete.wait()
