"""Messages that matched no queue wait in `jobs.unrouted`; a sweep routes those for which there is a queue by now.

One sweeper at a time, at most the messages that were there at its start, each published
again with confirm before it is acked. What still matches nothing goes back.
"""

from __future__ import annotations

from collections.abc import Iterable

from brokerjobs.amqp.delivery import Delivery
from brokerjobs.amqp.settlement import dead_letter
from brokerjobs.amqp.walk import walk
from brokerjobs.delay import LEVELS
from brokerjobs.errors import QueueInUse, UndecodableMessage, UnknownQueue
from brokerjobs.failure import Failure
from brokerjobs.message import decode, salvage
from brokerjobs.outcome import DeadLettered
from brokerjobs.settings import Settings
from brokerjobs.topology import Binding, Names, matches
from brokerjobs.transport import AsyncPublisher, Publication

MOST = 10_000  # messages in one sweep


async def sweep(settings: Settings, bindings: Iterable[Binding], publisher: AsyncPublisher) -> int:
    """Route what these bindings match by now; gives how many messages that were.

    Args:
        settings: where.
        bindings: those that the caller knows to exist.
        publisher: confirms each message in its new queue.

    Raises:
        BrokerUnreachable, ConnectionLost, PublishRefused, PublishUnknown: nothing is lost, sweep again later.
    """
    names, known = Names(settings.namespace), list(bindings)
    moved = 0
    try:
        async with walk(settings, names.unrouted, "sweep of") as unrouted:
            async for delivery in unrouted.deliveries(MOST):
                exchange = _last_exchange(names, delivery)
                if bound := _bound(known, exchange, delivery.routing_key):
                    for publication in _again(delivery, exchange, bound, names):
                        await publisher.publish(publication, timeout=settings.publish_timeout)
                    await delivery.ack()
                    moved += 1
    except (QueueInUse, UnknownQueue):  # somebody else sweeps, or nothing was ever unrouted
        pass
    return moved


def _again(delivery: Delivery, exchange: str, bound: list[Binding], names: Names) -> list[Publication]:
    """The message once more where it went; what no worker could read goes to the dead letters of those queues."""
    properties = delivery.properties
    try:
        message = decode(properties, delivery.body, routing_key=delivery.routing_key)
    except UndecodableMessage as error:
        message = salvage(properties, delivery.body, routing_key=delivery.routing_key)
        outcome = DeadLettered(reason=error.reason, failure=Failure(text=str(error)))
        queues = dict.fromkeys(names.queue_of(binding.destination) for binding in bound)
        return [dead_letter(message, outcome, queue, names) for queue in queues]
    return [Publication(exchange, delivery.routing_key, message.copy())]


def _last_exchange(names: Names, delivery: Delivery) -> str:
    """The exchange that knew no queue: after a wait the broker tells the first on the way, not the last."""
    waited = delivery.exchange in {names.after(level) for level in range(LEVELS)}
    return names.due if waited else delivery.exchange


def _bound(bindings: list[Binding], exchange: str, routing_key: str) -> list[Binding]:
    return [
        binding for binding in bindings if binding.source == exchange and matches(binding.key, routing_key)
    ]
