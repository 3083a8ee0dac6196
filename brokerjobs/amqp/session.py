"""A consuming session: one connection, a channel per queue, deliveries handed to a callback.

A session ends once and for all, when the connection or a channel closes or a consumer is cancelled. Jobs do not
end with it: the callback only takes a delivery in, and settling a delivery of an ended session is refused here,
because its tag may by then belong to another message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import aiormq.exceptions
from aiormq.abc import AbstractChannel, DeliveredMessage

from brokerjobs.amqp import guard
from brokerjobs.amqp.connection import LOST, Connection, ConnectionLost, deadline, explain_channel_error
from brokerjobs.amqp.wire import from_pamqp
from brokerjobs.errors import TopologyMismatch
from brokerjobs.message import PROBLEMS
from brokerjobs.settings import Settings

STEP_TIMEOUT = 15.0  # seconds


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
        self._channels: dict[str, AbstractChannel] = {}
        self._tags: dict[str, str] = {}
        self._starts: dict[str, Callable[[], Awaitable[None]]] = {}
        self.reason = ""
        self.ended_by: BaseException | None = None
        self._watcher = asyncio.create_task(self._watch_connection())
        self._watchers: set[asyncio.Future[Any]] = set()

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
        exclusive: bool = False,
        paused: bool = False,
    ) -> None:
        """Start consuming.

        Args:
            queue: the queue as the broker knows it.
            name: the queue as users say it; deliveries carry it.
            prefetch: unacknowledged deliveries at once.
            on_delivery: takes each delivery in, at once and without waiting.
            exclusive: refuse, and be refused by, any other consumer of the queue.
            paused: only prepare; `renew` starts.

        Raises:
            TopologyMismatch: there is no such queue.
            AccessRefused: the user may not read it.
            ConnectionLost: worth another try.
        """
        channel = await self._connection.channel()
        self._channels[name] = channel
        self._watch_channel(channel, queue)
        channel.on_consumer_cancel_callbacks.add(
            lambda _: self._end(f"RabbitMQ cancelled the consumer of {queue}: was the queue deleted?")
        )

        async def take(message: DeliveredMessage) -> None:
            on_delivery(Delivery(self, name, message))

        async def start() -> None:
            consumed = await channel.basic_consume(queue, take, exclusive=exclusive)
            self._tags[name] = consumed.consumer_tag or ""

        self._starts[name] = start
        try:
            async with deadline(STEP_TIMEOUT, f"consume {queue}"):
                await channel.basic_qos(prefetch_count=prefetch)
                if not paused:
                    await start()
        except aiormq.exceptions.ChannelNotFoundEntity:
            raise TopologyMismatch(
                f"there is no queue {queue!r}: run `brokerjobs topology apply`, or set topology to declare"
            ) from None
        except aiormq.exceptions.ChannelAccessRefused as error:
            raise explain_channel_error(error, self._settings) from None
        except LOST as error:
            raise ConnectionLost(str(error)) from None

    def consumes(self, name: str) -> bool:
        return name in self._tags

    async def renew(self, name: str) -> None:
        """Consume anew beside what is held unsettled: a new consumer may hold another prefetch of messages.

        Raises:
            ConnectionLost: the session has ended.
        """
        await self.cancel(name)
        try:
            async with deadline(STEP_TIMEOUT, f"consume {name} again"):
                await self._starts[name]()
        except LOST as error:
            raise ConnectionLost(str(error)) from None

    async def cancel(self, name: str) -> None:
        """Stop deliveries of one queue; what has arrived can still be settled."""
        tag, channel = self._tags.pop(name, ""), self._channels.get(name)
        if tag and channel is not None and not self.has_ended:
            with suppress(*LOST):
                async with deadline(STEP_TIMEOUT, f"cancel the consumer of {name}"):
                    await channel.basic_cancel(tag)

    async def ready(self, name: str, queue: str) -> int:
        """How many messages wait in the queue; every delivery that the broker sent before has arrived by then.

        Asked on the consumer's own channel, because only there does the answer come after the deliveries.
        """
        async with deadline(STEP_TIMEOUT, f"look for {queue}"):
            found = await self._channels[name].queue_declare(queue, passive=True)
        return found.message_count or 0

    def end(self, reason: str) -> None:
        """Give it up: whoever waits for its end goes on."""
        self._end(reason)

    async def close(self) -> None:
        """End the session; the broker gives back what was not settled."""
        self._end("closed")
        self._watcher.cancel()
        # A caller that is cancelled here leaves at once, and the connection still gets closed.
        await asyncio.shield(asyncio.ensure_future(self._connection.close()))

    def _end(self, reason: str) -> None:
        if not self._ended.is_set():
            self.reason = reason
            self._ended.set()

    async def _watch_connection(self) -> None:
        try:
            self.ended_by = await self._connection.wait_closed()
        finally:  # the client may also end its future by cancelling it
            self._end("the connection was lost")

    def _watch_channel(self, channel: AbstractChannel, queue: str) -> None:
        closing = asyncio.ensure_future(_closed(channel))
        self._watchers.add(closing)

        def over(task: asyncio.Future[str]) -> None:
            self._watchers.discard(closing)
            if not task.cancelled():
                self._end(f"the channel of {queue} closed: {task.result()}")

        closing.add_done_callback(over)


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
