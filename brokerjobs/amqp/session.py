"""A consuming session: one connection, a channel per queue, deliveries handed to a callback.

A session ends once and for all, when the connection or a channel closes or a consumer is cancelled. Jobs do not
end with it: the callback only takes a delivery in, and settling a delivery of an ended session is refused here,
because its tag may by then belong to another message.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiormq.exceptions
from aiormq.abc import AbstractChannel, DeliveredMessage

from brokerjobs.amqp import guard
from brokerjobs.amqp.connection import LOST, Connection, ConnectionLost, deadline, explain_channel_error
from brokerjobs.amqp.wire import from_pamqp
from brokerjobs.errors import BrokerJobsError, TopologyMismatch
from brokerjobs.message import PROBLEMS
from brokerjobs.settings import Settings

STEP_TIMEOUT = 15.0  # seconds
LOOK_TIMEOUT = 2.0
TAKEN_BACK = (
    "a job was not acknowledged in time (consumer_timeout), and is delivered again: lower its timeout, or raise that "
    'limit ("Long jobs" in docs/operations.md)'
)


class Delivery:
    """One arrival of a message at this worker; it is settled at most once."""

    __slots__ = ("_channel", "_message", "_session", "_tag", "is_settled", "queue")

    def __init__(self, session: Session, queue: str, message: DeliveredMessage) -> None:
        self.queue = queue
        self.is_settled = False
        self._session = session
        self._message = message
        self._channel = message.channel
        self._tag: int = message.delivery.delivery_tag  # type: ignore[union-attr, assignment]

    @property
    def body(self) -> bytes:
        return self._message.body

    @property
    def exchange(self) -> str:
        return self._message.delivery.exchange or ""  # type: ignore[union-attr]

    @property
    def routing_key(self) -> str:
        return self._message.delivery.routing_key or ""  # type: ignore[union-attr]

    @property
    def redelivered(self) -> bool:
        return bool(self._message.delivery.redelivered)  # type: ignore[union-attr]

    @property
    def properties(self) -> Mapping[str, Any]:
        found = from_pamqp(self._message.header.properties)
        if problems := guard.problems_of(self._message.delivery, self._message.header.properties):
            found[PROBLEMS] = problems
        return found

    @property
    def is_live(self) -> bool:
        """Whether it can still be settled: its session lasts and nobody has settled it."""
        return not self.is_settled and not self._session.has_ended

    async def ack(self) -> None:
        """Tell the broker that it is done with.

        Raises:
            ConnectionLost: the broker will deliver it again.
        """
        self._settle()
        await self._send(self._channel.basic_ack(self._tag, wait=False))

    async def requeue(self) -> None:
        """Give it back to its queue (nack).

        Raises:
            ConnectionLost: the broker gives it back by itself.
        """
        self._settle()
        await self._send(self._channel.basic_nack(self._tag, requeue=True, wait=False))

    def _settle(self) -> None:
        if self._session.has_ended:
            raise ConnectionLost("the session of this delivery has ended")
        if self.is_settled:
            raise AssertionError("settled twice: the broker would close the channel (406)")
        self.is_settled = True

    async def _send(self, frame: Any) -> None:
        try:
            async with deadline(STEP_TIMEOUT, "settle a delivery"):
                await frame
        except LOST as error:
            raise ConnectionLost(str(error)) from None


OnDelivery = Callable[[Delivery], None]


class Session:
    """Consumers on one connection."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        self._settings = settings
        self._ended = asyncio.Event()
        self._subscriptions: dict[str, _Subscription] = {}
        self.reason = ""
        self.ended_by: BaseException | None = None
        self._watcher = asyncio.create_task(self._watch_connection())
        self._watchers: set[asyncio.Future[None]] = set()

    @classmethod
    async def open(cls, settings: Settings, role: str) -> Session:
        """Raises what `Connection.open` does, and ConfigurationError where messages could end the session."""
        guard.install()
        return cls(await Connection.open(settings, role), settings)

    @property
    def connection(self) -> Connection:
        return self._connection

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    async def ended(self) -> None:
        """Return when the session is over; `reason` says why."""
        await self._ended.wait()

    async def consume(
        self,
        queue: str,
        name: str,
        prefetch: int,
        on_delivery: OnDelivery,
        *,
        paused: bool = False,
        within: float | None = None,
    ) -> None:
        """Start consuming.

        Args:
            queue: the queue as the broker knows it.
            name: the queue as users say it; deliveries carry it.
            prefetch: unacknowledged deliveries at once.
            on_delivery: takes each delivery in, at once and without waiting.
            paused: only prepare; `renew` starts.
            within: seconds until each delivery will be settled, told where RabbitMQ takes it back earlier.

        Raises:
            TopologyMismatch: there is no such queue.
            AccessRefused: the user may not read it.
            ConnectionLost: worth another try.
        """

        async def take(message: DeliveredMessage) -> None:
            on_delivery(Delivery(self, name, message))

        subscription = _Subscription(queue, prefetch, take)
        if within is not None and self._connection.capabilities.has("consumer_timeout_argument"):
            subscription.arguments = {"x-consumer-timeout": math.ceil(within * 1000)}
        try:
            async with deadline(STEP_TIMEOUT, f"consume {queue}"):
                await self._open_channel(subscription)
                self._subscriptions[name] = subscription
                if not paused:
                    await self._start(subscription)
        except aiormq.exceptions.ChannelNotFoundEntity:
            raise TopologyMismatch(
                f"there is no queue {queue!r}: run `brokerjobs topology apply`, or set topology to declare"
            ) from None
        except aiormq.exceptions.ChannelAccessRefused as error:
            raise explain_channel_error(error, self._settings) from None
        except LOST as error:
            raise ConnectionLost(str(error)) from None

    async def _open_channel(self, subscription: _Subscription) -> None:
        channel = await self._connection.channel()
        channel.on_consumer_cancel_callbacks.add(lambda _: self._watch(self._cancelled(subscription)))
        subscription.channel = channel
        self._watch(self._watch_channel(subscription, channel))
        await channel.basic_qos(prefetch_count=subscription.prefetch)

    async def _start(self, subscription: _Subscription) -> None:
        arguments = subscription.arguments
        try:
            consumed = await subscription.channel.basic_consume(
                subscription.queue, subscription.take, arguments=arguments
            )
        except aiormq.exceptions.ChannelPreconditionFailed:
            if not arguments:
                raise
            subscription.arguments = {}  # a classic queue: it refuses the argument, and needs none
            await self._open_channel(subscription)
            await self._start(subscription)
        else:
            subscription.tag, subscription.has_started = consumed.consumer_tag or "", True

    def consumes(self, name: str) -> bool:
        return bool(self._subscriptions[name].tag)

    async def renew(self, name: str) -> None:
        """Consume anew beside what is held unsettled: a new consumer may hold another prefetch of messages.

        Raises:
            ConnectionLost: the session has ended.
        """
        await self.cancel(name)
        try:
            async with deadline(STEP_TIMEOUT, f"consume {name} again"):
                await self._start(self._subscriptions[name])
        except LOST as error:
            self.end(f"{self._subscriptions[name].queue} cannot be consumed again: {error}")
            raise ConnectionLost(str(error)) from None

    async def cancel(self, name: str) -> None:
        """Stop deliveries of one queue; what has arrived can still be settled."""
        subscription = self._subscriptions.get(name)
        if subscription is None or not subscription.tag:
            return
        tag, subscription.tag = subscription.tag, ""
        if not self.has_ended:
            with suppress(*LOST):
                async with deadline(STEP_TIMEOUT, f"cancel the consumer of {name}"):
                    await subscription.channel.basic_cancel(tag)

    async def ready(self, name: str, queue: str) -> int:
        """How many messages wait in the queue; every delivery that the broker sent before has arrived by then.

        Asked on the consumer's own channel, because only there does the answer come after the deliveries. The client
        closes a channel on which a question is cancelled, so this one goes on when its caller is.
        """
        asking = asyncio.ensure_future(self._ask_ready(name, queue))
        asking.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(asking)

    async def _ask_ready(self, name: str, queue: str) -> int:
        async with deadline(STEP_TIMEOUT, f"look for {queue}"):
            found = await self._subscriptions[name].channel.queue_declare(queue, passive=True)
        return found.message_count or 0

    async def close(self) -> None:
        """End the session; the broker gives back what was not settled."""
        self.end("closed")
        self._watcher.cancel()
        # A caller that is cancelled here leaves at once, and the connection still gets closed.
        await asyncio.shield(asyncio.ensure_future(self._connection.close()))

    def end(self, reason: str) -> None:
        """Be over from now on, for this reason, unless it is already: whoever waits for it goes on."""
        if not self._ended.is_set():
            self.reason = reason
            self._ended.set()

    async def _watch_connection(self) -> None:
        try:
            self.ended_by = await self._connection.wait_closed()
        finally:  # the client may also end its future by cancelling it
            self.end("the connection was lost")

    def _watch(self, watch: Coroutine[Any, Any, None]) -> None:
        watching = asyncio.ensure_future(watch)
        self._watchers.add(watching)
        watching.add_done_callback(self._watchers.discard)

    async def _watch_channel(self, subscription: _Subscription, channel: AbstractChannel) -> None:
        why = await _closed(channel)
        if subscription.has_started:  # else whoever starts it is told
            self.end(f"the channel of {subscription.queue} closed: {_explain(why)}")

    async def _cancelled(self, subscription: _Subscription) -> None:
        """The broker does not say why; what has become of the queue tells."""
        queue = subscription.queue
        try:
            async with (
                self._connection.scratch_channel() as channel,
                deadline(LOOK_TIMEOUT, f"look for {queue}"),
            ):
                await channel.queue_declare(queue, passive=True)
        except aiormq.exceptions.ChannelNotFoundEntity:
            self.end(f"RabbitMQ cancelled the consumer of {queue}: the queue was deleted")
        except (*LOST, BrokerJobsError):
            self.end(f"RabbitMQ cancelled the consumer of {queue}")
        else:
            self.end(f"RabbitMQ cancelled the consumer of {queue}, which is still there: {TAKEN_BACK}")


@dataclass(slots=True, eq=False)
class _Subscription:
    """A queue that is consumed, or shall be: then its `tag` is empty."""

    queue: str
    prefetch: int
    take: Callable[[DeliveredMessage], Coroutine[Any, Any, None]]
    arguments: dict[str, Any] = field(default_factory=dict)
    channel: AbstractChannel = field(init=False)
    tag: str = ""
    has_started: bool = False


def _explain(why: str) -> str:
    return f"{TAKEN_BACK} ({why})" if "delivery acknowledgement" in why else why


async def _closed(channel: AbstractChannel) -> str:
    try:
        await asyncio.shield(channel.closing)
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise
        return "closed"
    except Exception as error:
        return str(error) or type(error).__name__
    return "closed"
