"""What happens to each dead letter on the way through the queue: it is replayed, or dropped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from brokerjobs.amqp.delivery import Delivery
from brokerjobs.dead_letters.letter import DeadLetter, replay_of
from brokerjobs.errors import AccessRefused, BrokerUnreachable, PublishRefused, Unroutable
from brokerjobs.topology import Names
from brokerjobs.transport import AsyncPublisher

Effect = Literal["kept", "done", "double", "refused", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a replay or a drop is.

    Args:
        present: messages in the dead letter queue at the start.
        seen: how many of them were looked at.
        done: replayed, or dropped.
        doubles: further copies of what was replayed, removed.
        refused: what RabbitMQ would not take; they stay.
        problem: why it did not take the first of these.
        stopped: whether it was told to stop before the end.
    """

    present: int
    seen: int = 0
    done: int = 0
    doubles: int = 0
    refused: int = 0
    problem: str = ""
    stopped: bool = False

    def after(self, effect: Effect, problem: str = "") -> Progress:
        if effect == "stopped":
            return replace(self, stopped=True)
        return replace(
            self,
            seen=self.seen + 1,
            done=self.done + (effect == "done"),
            doubles=self.doubles + (effect == "double"),
            refused=self.refused + (effect == "refused"),
            problem=self.problem or problem,
        )


OnStep = Callable[[Progress, DeadLetter | None], None]
"""Called after each message with the progress, and with the dead letter if it was replayed or dropped."""


class Action(Protocol):
    problem: str

    async def take(self, letter: DeadLetter, delivery: Delivery) -> Effect:
        """Do it to one dead letter that was chosen."""


class Pace:
    """Lets at most so many through in a second, evenly.

    Args:
        rate: None for no limit.
        stop: ends a wait early.
    """

    def __init__(self, rate: float | None, stop: asyncio.Event) -> None:
        self._interval = 1 / rate if rate else 0.0
        self._stop = stop
        self._next = 0.0

    async def wait(self) -> None:
        clock = asyncio.get_running_loop().time
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._next - clock())):
                await self._stop.wait()
        self._next = max(self._next, clock()) + self._interval


@dataclass(slots=True, kw_only=True)
class Replay:
    """Publish again, wait for the confirm, and only then remove.

    Args:
        names: where to.
        publisher: confirms.
        timeout: seconds for one confirm.
        pace: not faster.
        stop: no more when this is set.
        limit: at most so many; further copies of these are still removed.
        delay: seconds until they run.
        dry_run: publish and remove nothing.
    """

    names: Names
    publisher: AsyncPublisher
    timeout: float
    pace: Pace
    stop: asyncio.Event
    limit: int | None
    delay: float
    dry_run: bool
    problem: str = ""
    _done: int = 0
    _generations: dict[object, int] = field(default_factory=dict)

    async def take(self, letter: DeadLetter, delivery: Delivery) -> Effect:
        sent = self._generations.get(letter.identity) if letter.identity else None
        if sent is not None:
            return await self._take_again(letter, delivery, sent)
        if self.limit is not None and self._done >= self.limit:
            return "kept"
        publication = replay_of(letter, self.names, now=time.time(), delay=self.delay)
        if not self.dry_run:
            await self.pace.wait()
            if self.stop.is_set():
                return "stopped"
            try:
                await self.publisher.publish(publication, timeout=self.timeout)
            except (BrokerUnreachable, AccessRefused, Unroutable):
                raise
            except PublishRefused as error:  # this one alone, say because it is above a limit set since
                self.problem = self.problem or f"{letter.id}: {error}"
                return "refused"
            await delivery.ack()
        self._done += 1
        if letter.identity:
            self._generations[letter.identity] = publication.message.generation
        return "done"

    async def _take_again(self, letter: DeadLetter, delivery: Delivery, sent: int) -> Effect:
        if letter.message.generation >= sent:  # no copy: its replay ran meanwhile, and died anew
            return "kept"
        if not self.dry_run:
            await delivery.ack()
        return "double"


@dataclass(slots=True, kw_only=True)
class Drop:
    """Remove for good.

    Args:
        limit: at most so many.
        dry_run: remove nothing.
    """

    limit: int | None
    dry_run: bool
    problem: str = ""
    _done: int = 0

    async def take(self, letter: DeadLetter, delivery: Delivery) -> Effect:
        if self.limit is not None and self._done >= self.limit:
            return "kept"
        if not self.dry_run:
            await delivery.ack()
        self._done += 1
        return "done"
