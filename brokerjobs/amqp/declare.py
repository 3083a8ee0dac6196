"""Apply a Topology to a broker, or check that it is there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress

import aiormq.exceptions
from aiormq.abc import AbstractChannel

from brokerjobs.amqp.connection import Connection, deadline, explain_channel_error, reply_text
from brokerjobs.errors import TopologyMismatch
from brokerjobs.settings import Settings
from brokerjobs.topology import Binding, Exchange, Names, Part, Queue, Topology

STEP_TIMEOUT = 30.0  # seconds: declaring a quorum queue on a busy cluster is slow


async def apply(
    connection: Connection, topology: Topology, settings: Settings, *, keep: bool = False
) -> list[str]:
    """Declare every part; a part that exists as asked for is left alone.

    Args:
        connection: to the broker.
        topology: the parts, in order.
        settings: for the words of errors.
        keep: let a queue that exists with other arguments be, instead of raising.

    Returns:
        What differs, in words, for each queue that was kept.

    Raises:
        TopologyMismatch: a part exists with other arguments.
        AccessRefused: the user may not declare.
        ConnectionLost: worth another try.
    """
    differences = []
    channel = await connection.channel()
    for part in topology:
        try:
            async with deadline(STEP_TIMEOUT, f"declare {_name(part)}"):
                await _declare(channel, part)
        except aiormq.exceptions.ChannelPreconditionFailed as error:
            difference = _mismatch(part, reply_text(error))
            if not (keep and isinstance(part, Queue)):
                raise TopologyMismatch(difference) from None
            differences.append(difference)
            channel = await connection.channel()
        except aiormq.exceptions.ChannelAccessRefused as error:
            raise explain_channel_error(error, settings) from None
    await _settle(channel, topology, settings)
    return differences


async def _settle(channel: AbstractChannel, topology: Topology, settings: Settings) -> None:
    """Bindings are sent without waiting for each; closing the channel waits for all of them."""
    try:
        async with deadline(STEP_TIMEOUT, "declare bindings"):
            for binding in topology.bindings[:1]:
                await channel.exchange_declare(binding.source, passive=True)
            await channel.close()
    except aiormq.exceptions.ChannelClosed as error:
        raise explain_channel_error(error, settings) from None


async def apply_shared(connection: Connection, names: Names, topology: Topology, settings: Settings) -> None:
    """Declare the shared part unless its mark says that all of it is there."""
    if not await exists(connection, Exchange(name=names.ready, type="fanout")):
        await apply(connection, topology, settings)


async def missing(connection: Connection, topology: Topology) -> list[Exchange | Queue]:
    """The exchanges and queues that are not there; bindings and arguments cannot be asked for over AMQP."""
    parts: list[Exchange | Queue] = [*topology.exchanges, *topology.queues]
    return [part for part in parts if not await exists(connection, part)]


async def exists(connection: Connection, part: Exchange | Queue) -> bool:
    async with connection.scratch_channel() as channel:
        try:
            async with deadline(STEP_TIMEOUT, f"look for {part.name}"):
                if isinstance(part, Exchange):
                    await channel.exchange_declare(part.name, passive=True)
                else:
                    await channel.queue_declare(part.name, passive=True)
        except aiormq.exceptions.ChannelNotFoundEntity:
            return False
    return True


async def count(connection: Connection, queue: str) -> tuple[int, int] | None:
    """Messages ready and consumers of a queue; None where there is no such queue."""
    return (await counts(connection, [queue]))[queue]


async def counts(connection: Connection, queues: Iterable[str]) -> dict[str, tuple[int, int] | None]:
    """Of each queue the messages ready and the consumers; None where there is no such queue."""
    found: dict[str, tuple[int, int] | None] = dict.fromkeys(queues)
    left = list(found)
    while left:
        async with connection.scratch_channel() as channel:  # a missing queue costs the channel
            with suppress(aiormq.exceptions.ChannelNotFoundEntity):
                while left:
                    queue = left.pop()
                    async with deadline(STEP_TIMEOUT, f"look for {queue}"):
                        declared = await channel.queue_declare(queue, passive=True)
                    found[queue] = declared.message_count or 0, declared.consumer_count or 0
    return found


async def _declare(channel: AbstractChannel, part: Part) -> None:
    match part:
        case Exchange():
            await channel.exchange_declare(
                part.name, exchange_type=part.type, durable=True, arguments=dict(part.arguments)
            )
        case Queue():
            await channel.queue_declare(part.name, durable=True, arguments=dict(part.arguments))
        case Binding():
            if part.to_exchange:
                await channel.exchange_bind(
                    destination=part.destination, source=part.source, routing_key=part.key, nowait=True
                )
            else:
                await channel.queue_bind(
                    part.destination, exchange=part.source, routing_key=part.key, nowait=True
                )


def _mismatch(part: Part, broker_says: str) -> str:
    kind = type(part).__name__.lower()
    difference = re.sub(r"^PRECONDITION_FAILED - ", "", broker_says)
    return (
        f"{kind} {_name(part)!r} exists with other arguments than brokerjobs would give it ({difference}). "
        "Arguments of a queue cannot be changed: set queue_type or priorities to what is there, "
        "or let it run empty, delete it, and run `brokerjobs topology apply`"
    )


def _name(part: Part) -> str:
    return part.destination if isinstance(part, Binding) else part.name
