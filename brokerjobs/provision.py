"""See to it that the broker has what the consumers need: declare it, check it, or trust that it is there."""

from __future__ import annotations

from collections.abc import Sequence

from brokerjobs import topology
from brokerjobs.amqp import declare
from brokerjobs.amqp.connection import Connection
from brokerjobs.capabilities import Capabilities
from brokerjobs.consumer import Consumer
from brokerjobs.errors import TopologyMismatch
from brokerjobs.logs import log
from brokerjobs.settings import Settings
from brokerjobs.topology import Exchange, Names, Queue, Topology


def needs_of(consumer: Consumer, capabilities: Capabilities, settings: Settings) -> Topology:
    """What one consumer needs besides the shared part."""
    return topology.for_queue(
        Names(settings.namespace),
        consumer.queue,
        capabilities,
        bind=consumer.bind,
        queue_type=consumer.queue_type or settings.queue_type,
        priorities=consumer.priorities,
    )


def needs_of_all(consumers: Sequence[Consumer], capabilities: Capabilities, settings: Settings) -> Topology:
    """The shared part and what each consumer needs."""
    parts = topology.shared(Names(settings.namespace))
    for consumer in consumers:
        parts += needs_of(consumer, capabilities, settings)
    return parts


async def ensure(connection: Connection, consumers: Sequence[Consumer], settings: Settings) -> None:
    """What a worker does about queues before it consumes, by the setting `topology`.

    Raises:
        TopologyMismatch: something is missing (check), or exists with other arguments than were asked for.
        AccessRefused: the user may not declare.
        ConnectionLost: worth another try.
    """
    match settings.topology:
        case "declare":
            names = Names(settings.namespace)
            await declare.apply_shared(connection, names, topology.shared(names), settings)
            for difference in await apply(connection, consumers, settings):
                log.warning("queue kept as it is", difference=difference)
        case "check":
            if found := await missing(connection, consumers, settings):
                first, more = ", ".join(part.name for part in found[:3]), len(found) - 3
                raise TopologyMismatch(
                    f"missing in RabbitMQ: {first}{f' and {more} more' if more > 0 else ''}; "
                    "run `brokerjobs topology apply`"
                )


async def apply(connection: Connection, consumers: Sequence[Consumer], settings: Settings) -> list[str]:
    """Declare the consumers' queues; gives what differs of each queue that was kept as it was.

    A queue that exists wins, unless its kind was asked for by name.
    """
    kept = []
    for consumer in consumers:
        keep = (consumer.queue_type or settings.queue_type) == "auto"
        parts = needs_of(consumer, connection.capabilities, settings)
        kept += await declare.apply(connection, parts, settings, keep=keep)
    return kept


async def missing(
    connection: Connection, consumers: Sequence[Consumer], settings: Settings
) -> list[Exchange | Queue]:
    """The exchanges and queues that are not there."""
    return await declare.missing(connection, needs_of_all(consumers, connection.capabilities, settings))
