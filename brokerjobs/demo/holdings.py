"""What the queues hold, asked from RabbitMQ itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

from brokerjobs import topology
from brokerjobs.amqp import declare
from brokerjobs.amqp.connection import LOST, Connection, ConnectionLost, deadline
from brokerjobs.amqp.walk import walk
from brokerjobs.delay import LEVELS
from brokerjobs.message import decode
from brokerjobs.settings import Settings
from brokerjobs.topology import Names

STEP_TIMEOUT = 30.0  # seconds
PATIENCE = 3.0  # seconds to wait while the person looks at dead letters too


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """How many messages lie where.

    Args:
        ready: per queue, to be delivered next.
        dead: per queue, in its dead letter queue.
        delayed: in all delay levels together.
        unrouted: in `jobs.unrouted`.
    """

    ready: Mapping[str, int]
    dead: Mapping[str, int]
    delayed: int
    unrouted: int

    @property
    def is_quiet(self) -> bool:
        """Nothing is left to do."""
        return not (any(self.ready.values()) or self.delayed or self.unrouted)


class Namespace:
    """The exchanges and queues of one namespace; no other is touched.

    Args:
        settings: which broker, and which namespace in it.
        queues: as users say them.
    """

    def __init__(self, settings: Settings, queues: Sequence[str]) -> None:
        self._settings = settings
        self._names = Names(settings.namespace)
        self._queues = queues

    async def __aenter__(self) -> Self:
        self._connection = await Connection.open(self._settings, "demo")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()

    @property
    def rabbitmq(self) -> str:
        """The broker's version, as it says."""
        return str(self._connection.capabilities)

    async def exists(self) -> bool:
        """Whether anything of it is there.

        Raises:
            ConnectionLost: as all methods here do.
        """
        return await self._found(self._names.unrouted) is not None

    async def is_consumed(self) -> bool:
        """Whether a worker takes from its queues."""
        found = [await self._found(self._names.queue(queue)) for queue in self._queues]
        return any(consumers for _, consumers in filter(None, found))

    async def clear(self) -> None:
        """Delete all of it, messages included."""
        shared = topology.shared(self._names)
        queues = [queue.name for queue in shared.queues]
        queues += [name(queue) for queue in self._queues for name in (self._names.queue, self._names.dead)]
        async with self._channel("clear the namespace") as channel:
            # Sources before targets, so that nothing expires towards what is gone.
            for queue in reversed(queues):
                await channel.queue_delete(queue)
            for exchange in reversed(shared.exchanges):
                await channel.exchange_delete(exchange.name)

    async def count(self) -> Holdings:
        """What lies where now."""
        names = self._names
        async with self._channel("count messages") as channel:

            async def ready(queue: str) -> int:
                return (await channel.queue_declare(queue, passive=True)).message_count or 0

            return Holdings(
                ready={queue: await ready(names.queue(queue)) for queue in self._queues},
                dead={queue: await ready(names.dead(queue)) for queue in self._queues},
                delayed=sum([await ready(names.level(k)) for k in range(LEVELS)]),
                unrouted=await ready(names.unrouted),
            )

    async def dead_ids(self, queue: str) -> list[str]:
        """The job ids in a dead letter queue; they stay there."""
        async with walk(self._settings, self._names.dead(queue), "demo looks at", patience=PATIENCE) as way:
            return [
                decode(delivery.properties, delivery.body, routing_key=delivery.routing_key).id
                async for delivery in way.deliveries()
            ]

    async def _found(self, queue: str) -> tuple[int, int] | None:
        try:
            return await declare.count(self._connection, queue)
        except LOST:
            raise _gone(f"look for {queue}") from None

    @asynccontextmanager
    async def _channel(self, purpose: str) -> AsyncIterator[Any]:
        try:
            async with self._connection.scratch_channel() as channel, deadline(STEP_TIMEOUT, purpose):
                yield channel
        except LOST:
            raise _gone(purpose) from None


def _gone(purpose: str) -> ConnectionLost:
    return ConnectionLost(f"RabbitMQ has gone away; the demo wanted to {purpose}")
