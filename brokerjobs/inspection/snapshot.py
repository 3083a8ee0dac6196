"""One look at a namespace, from two sources that know different things.

AMQP says exactly how many messages of a queue are ready and how many consumers it has, of queues whose names one
knows. The management API knows the names of all queues, and how many deliveries are unacknowledged; its counts of
quorum queues are up to five seconds old (measured on 3.10 and 4.3). So names and unacknowledged deliveries are taken
from the API if it answers, and all else from AMQP. Nobody knows which queue a message in a delay level is for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from brokerjobs import delay
from brokerjobs.amqp import declare
from brokerjobs.amqp.connection import Connection
from brokerjobs.errors import ConfigurationError
from brokerjobs.inspection.management import Listing, ManagementUnavailable, listing
from brokerjobs.settings import Settings
from brokerjobs.topology import Names, check_word

TOGETHER = 4  # questions on their way at once: one after another, each takes as long as to RabbitMQ and back


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """One queue.

    Args:
        queue: as users say it.
        ready: messages that wait for a worker; None where there is no such queue.
        unacked: deliveries that workers hold, running or about to; None where the management API does not tell.
        consumers: how many workers consume it.
        dead: messages in its dead letter queue, but for those that somebody holds who goes through them.
        paused: whether `brokerjobs pause` holds it.
    """

    queue: str
    ready: int | None
    unacked: int | None
    consumers: int
    dead: int
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Level:
    """What waits in one delay level.

    Args:
        delay: how long a message stays in it, seconds.
        waiting: messages in it, of whatever queue.
    """

    delay: float
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a namespace holds.

    Args:
        at: seconds since the epoch.
        queues: each of its queues, by name.
        levels: the delay levels that hold messages: retries and scheduled jobs of all queues together.
        unrouted: messages that no queue was bound for; None where nothing was declared yet.
        missing: what could not be told and why, in one sentence; empty when all could.
    """

    at: float
    queues: tuple[Counts, ...]
    levels: tuple[Level, ...]
    unrouted: int | None
    missing: str = ""

    @property
    def waiting(self) -> int:
        """Messages in all delay levels."""
        return sum(level.waiting for level in self.levels)


async def counted(
    connection: Connection,
    names: Names,
    queues: Iterable[str],
    listed: Listing,
    missing: str,
    absent: Collection[str] = (),
) -> Snapshot:
    """Count what some queues of the namespace hold.

    Args:
        connection: to ask on.
        names: of the namespace.
        queues: as users say them.
        listed: what the management API says of them.
        missing: what it does not.
        absent: names in the broker that are known not to be there: RabbitMQ logs each question for such a queue.

    Raises:
        ConnectionLost: worth another try.
        AccessRefused: the user may not look there.
    """
    at, known = time.time(), list(queues)
    asked = [name for name in broker_names(names, known) if name not in absent]
    parts = (asked[start::TOGETHER] for start in range(TOGETHER))
    answers = await asyncio.gather(*(declare.counts(connection, part) for part in parts if part))
    counts = {name: count for answer in (dict.fromkeys(absent), *answers) for name, count in answer.items()}
    unrouted = counts[names.unrouted]
    return Snapshot(
        at=at,
        queues=tuple(_counts(queue, names, counts, listed.unacked) for queue in known),
        levels=_levels(names, counts),
        unrouted=unrouted[0] if unrouted else None,
        missing=missing,
    )


def found(listed: Iterable[str], names: Names) -> list[str]:
    """The queues of the namespace among names in the broker: those that have a dead letter queue beside them."""
    all_names = set(listed)
    prefix = names.queue("")
    words = (name.removeprefix(prefix) for name in all_names if name.startswith(prefix))
    return sorted(word for word in words if is_queue(word) and names.dead(word) in all_names)


def is_queue(word: str) -> bool:
    """Whether a queue of users may be called so."""
    try:
        check_word(word, "queue")
    except ConfigurationError:
        return False
    return True


async def ask(settings: Settings) -> tuple[Listing, str]:
    """What the management API says, and why it does not."""
    try:
        return await listing(settings), ""
    except ManagementUnavailable as error:
        return Listing({}), str(error)


def of_this_broker(listed: Listing, why: str, cluster_name: str) -> tuple[Listing, str]:
    """The listing and what it lacks; where another broker on the same host has answered, none of it is true."""
    if not why and listed.cluster_name != cluster_name:
        why = f"at {listed.url} is the management API of another RabbitMQ, {listed.cluster_name}; set management_url"
    if why:
        missing = f"unacked deliveries, and queues that no consumer here declares, are not shown: {why}"
        return Listing({}), missing
    return listed, ""


def broker_names(names: Names, queues: list[str]) -> list[str]:
    """All that is looked for in the broker, under its names there."""
    levels = [names.level(k) for k in range(delay.LEVELS)]
    return [
        *map(names.queue, queues),
        *map(names.dead, queues),
        *map(names.paused, queues),
        *levels,
        names.unrouted,
    ]


def _counts(
    queue: str,
    names: Names,
    counts: Mapping[str, tuple[int, int] | None],
    listed: Mapping[str, int],
) -> Counts:
    work, dead = counts[names.queue(queue)], counts[names.dead(queue)]
    return Counts(
        queue=queue,
        ready=work[0] if work else None,
        unacked=listed.get(names.queue(queue)),
        consumers=work[1] if work else 0,
        dead=dead[0] if dead else 0,
        paused=counts[names.paused(queue)] is not None,
    )


def _levels(names: Names, counts: Mapping[str, tuple[int, int] | None]) -> tuple[Level, ...]:
    levels = ((k, counts[names.level(k)]) for k in range(delay.LEVELS))
    return tuple(Level(2**k * delay.UNIT, count[0]) for k, count in levels if count and count[0])
