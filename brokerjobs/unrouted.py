"""Messages that matched no queue wait in `jobs.unrouted`; a sweep routes those for which there is a queue by now.

One sweeper at a time (an exclusive consumer), at most the messages that were there at its start, each published
again with confirm before it is acked. What still matches nothing goes back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from brokerjobs.amqp import declare
from brokerjobs.amqp.session import Delivery, Session
from brokerjobs.errors import AccessRefused
from brokerjobs.message import decode
from brokerjobs.settings import Settings
from brokerjobs.topology import Binding, Names, matches
from brokerjobs.transport import AsyncPublisher, Publication

MOST = 10_000  # messages in one sweep
DELIVERY_TIMEOUT = 5.0  # seconds


async def sweep(settings: Settings, bindings: Iterable[Binding], publisher: AsyncPublisher) -> int:
    """Route what these bindings match by now; gives how many messages that were.

    Args:
        settings: where.
        bindings: those that the caller knows to exist.
        publisher: confirms each message in its new queue.

    Raises:
        BrokerUnreachable, ConnectionLost, PublishRefused, PublishUnknown: nothing is lost, sweep again later.
    """
    queue = Names(settings.namespace).unrouted
    session = await Session.open(settings, "sweep of unrouted jobs")
    try:
        found = await declare.count(session.connection, queue)
        if found is None or found[0] == 0:
            return 0
        count = min(found[0], MOST)
        arrived: asyncio.Queue[Delivery] = asyncio.Queue()
        try:
            await session.consume(queue, queue, count, arrived.put_nowait, exclusive=True)
        except AccessRefused:  # somebody else sweeps
            return 0
        return await _route(arrived, count, list(bindings), publisher, settings.publish_timeout)
    finally:
        await session.close()  # gives back what was not acked


async def _route(
    arrived: asyncio.Queue[Delivery],
    count: int,
    bindings: list[Binding],
    publisher: AsyncPublisher,
    timeout: float,
) -> int:
    moved = 0
    for _ in range(count):
        try:
            async with asyncio.timeout(DELIVERY_TIMEOUT):
                delivery = await arrived.get()
        except TimeoutError:  # somebody else took the rest before we were exclusive
            break
        if not _is_bound(bindings, delivery.exchange, delivery.routing_key):
            continue
        message = decode(delivery.properties, delivery.body, routing_key=delivery.routing_key)
        publication = Publication(delivery.exchange, delivery.routing_key, message.copy())
        await publisher.publish(publication, timeout=timeout)
        await delivery.ack()
        moved += 1
    return moved


def _is_bound(bindings: list[Binding], exchange: str, routing_key: str) -> bool:
    return any(binding.source == exchange and matches(binding.key, routing_key) for binding in bindings)
