"""A consuming session: one connection, a channel per queue, deliveries handed to a callback.

A session ends once and for all, when its connection does. Where RabbitMQ closes the channel of one queue, or cancels
its consumer, that queue alone is lost, and may be consumed anew beside the others. Jobs do not end with either: the
callback only takes a delivery in, and settling what a lost channel has brought is refused here, because its tag may by
then belong to another message.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiormq.exceptions
from aiormq.abc import AbstractChannel, DeliveredMessage

from brokerjobs.amqp import guard
from brokerjobs.amqp.connection import (
    LOST,
    Connection,
    ConnectionLost,
    deadline,
    explain_channel_error,
    reply_text,
)
from brokerjobs.amqp.delivery import STEP_TIMEOUT, Arrival, ByClient, Delivery, FromClient, Settling
from brokerjobs.amqp.inlet import Inlet, agrees_with_client
from brokerjobs.amqp.taps import TappedStreams
from brokerjobs.durations import text
from brokerjobs.errors import BrokerJobsError, TopologyMismatch
from brokerjobs.logs import log
from brokerjobs.settings import Settings

LOOK_TIMEOUT = 2.0
# Quorum queues put acknowledgements behind all else, the end of a connection too: closed at once after them, 9 of 12
# connections lost some, with only the question 4 of 12, with the moment none of 20 (RabbitMQ 4.3.6).
LAST_MOMENT = 0.1
LAST_QUESTION_TIMEOUT = 0.5  # what is not read by then, of a broker that stands still, is delivered again
CONSUMER_TIMEOUT = "x-consumer-timeout"  # milliseconds; from 4.3, and refused by classic queues
NEVER = 2**31 - 1  # the longest of such limits
# Means nothing here; but before 4.0 classic queues accept it and quorum queues refuse it, which tells them apart.
CLASSIC_ONLY = {"x-cancel-on-ha-failover": False}
TAKEN_BACK = (
    "a job was not acknowledged {within} (RabbitMQ's consumer_timeout), and is delivered again: lower the job's "
    'timeout, or raise that limit and say so in BROKERJOBS_CONSUMER_TIMEOUT ("Long jobs" in docs/operations.md)'
)
_LIMIT = re.compile(r"Timeout value used: (\d+) ms")


@dataclass(frozen=True, slots=True)
class Loss:
    """RabbitMQ has taken a queue from this session.

    Args:
        why: in words.
        is_late: because a delivery was not acknowledged in time.
    """

    why: str
    is_late: bool = False


OnDelivery = Callable[[Delivery], None]
OnLoss = Callable[[Loss], None]


class Session:
    """Consumers on one connection."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._connection = connection
        self._settings = settings
        self._streams = _streams_of(connection) if settings.fast_lane else None
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
        ask_kind: bool = False,
        on_loss: OnLoss | None = None,
    ) -> None:
        """Start consuming.

        Args:
            queue: the queue as the broker knows it.
            name: the queue as users say it; deliveries carry it.
            prefetch: unacknowledged deliveries at once.
            on_delivery: takes each delivery in, at once and without waiting.
            paused: only prepare; `renew` starts.
            within: seconds until each delivery will be settled, told where RabbitMQ takes it back earlier.
            ask_kind: find out whether it is a quorum queue, for `Delivery.is_counted`.
            on_loss: told when this queue is lost and the session lasts; without it the session ends then.

        Raises:
            TopologyMismatch: there is no such queue.
            AccessRefused: the user may not read it.
            ConnectionLost: worth another try.
        """
        subscription = _Subscription(name, queue, prefetch, on_delivery, on_loss, self._ended.is_set)
        capabilities = self._connection.capabilities
        if capabilities.has("consumer_timeout_argument"):
            if within is not None or ask_kind:
                limit = NEVER if within is None else math.ceil(within * 1000)
                subscription.arguments = {CONSUMER_TIMEOUT: limit}
        elif ask_kind and not capabilities.has("failover_argument_everywhere"):
            subscription.arguments = CLASSIC_ONLY
        try:
            async with deadline(STEP_TIMEOUT, f"consume {queue}"):
                await self._open_channel(subscription)
                self._subscriptions[name] = subscription
                if not paused:
                    await self._start(subscription)
            subscription.has_begun = True
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
        channel.on_consumer_cancel_callbacks.add(lambda _: self._cancelled(subscription))
        subscription.channel, subscription.inlet = channel, None
        if (streams := self._streams) is not None:
            inlet = Inlet(
                channel.number,
                streams.send,
                lambda arrival: self._arrived(subscription, arrival, inlet.acks),
                together=self._settings.ack_together,
            )
            streams.reader.taps[channel.number] = inlet.tap
            subscription.inlet = inlet
        self._watch(self._watch_channel(subscription, channel))
        await channel.basic_qos(prefetch_count=subscription.prefetch)

    def _arrived(self, subscription: _Subscription, arrival: Arrival, settling: Settling) -> None:
        if not subscription.is_lost:
            delivery = Delivery(
                subscription.name,
                arrival,
                settling,
                subscription.is_void,
                is_counted=subscription.is_counting,
            )
            subscription.on_delivery(delivery)

    async def _start(self, subscription: _Subscription) -> None:
        arguments, channel = subscription.arguments, subscription.channel
        subscription.has_begun = False

        async def take(message: DeliveredMessage) -> None:
            self._arrived(subscription, FromClient(message), ByClient(channel))

        if arguments:  # as it is when these are accepted; deliveries may come at once
            subscription.is_counting = CONSUMER_TIMEOUT in arguments
        try:
            consumed = await channel.basic_consume(subscription.queue, take, arguments=arguments)
        except aiormq.exceptions.ChannelPreconditionFailed:
            if not arguments:
                raise
            subscription.is_counting = arguments is CLASSIC_ONLY
            subscription.arguments = {}
            await self._open_channel(subscription)
            await self._start(subscription)
        else:
            subscription.tag, subscription.has_begun = consumed.consumer_tag or "", True

    def consumes(self, name: str) -> bool:
        subscription = self._subscriptions.get(name)
        return subscription is not None and bool(subscription.tag)

    async def renew(self, name: str) -> None:
        """Consume anew beside what is held unsettled: a new consumer may hold another prefetch of messages.

        Raises:
            ConnectionLost: the session has ended, or this queue is lost to it.
        """
        await self.cancel(name)
        subscription = self._subscriptions[name]
        try:
            async with deadline(STEP_TIMEOUT, f"consume {name} again"):
                await self._start(subscription)
        except LOST as error:
            why = f"{subscription.queue} cannot be consumed again: {error}"
            if isinstance(
                error, (aiormq.exceptions.ChannelClosed, aiormq.exceptions.ChannelInvalidStateError)
            ):
                self._lose(subscription, Loss(why))
            else:
                self.end(why)
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
        for subscription in self._subscriptions.values():
            subscription.flush()
        has_answered = bool(self._subscriptions) and not self.has_ended
        self.end("closed")
        self._watcher.cancel()
        # A caller that is cancelled here leaves at once, and the connection still gets closed.
        await asyncio.shield(asyncio.ensure_future(self._close(ask=has_answered)))

    async def _close(self, *, ask: bool) -> None:
        if ask:
            asked = map(self._until_answers_are_read, self._subscriptions.values())
            await asyncio.gather(*asked, return_exceptions=True)
            await asyncio.sleep(LAST_MOMENT)  # noqa: TID251  (nothing tells when a quorum queue has heard them)
        await self._connection.close()

    async def _until_answers_are_read(self, subscription: _Subscription) -> None:
        """RabbitMQ drops what it has not read of a channel when the connection closes; so one question comes first."""
        if not subscription.channel.is_closed:
            with suppress(*LOST):
                async with deadline(LAST_QUESTION_TIMEOUT, f"close the channel of {subscription.queue}"):
                    await subscription.channel.basic_qos(prefetch_count=subscription.prefetch)

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
        error = await _closed(channel)
        if (streams := self._streams) is not None:
            streams.reader.taps.pop(channel.number, None)
        if not subscription.has_begun or subscription.channel is not channel:
            return  # whoever opened it is told
        why = f"the channel of {subscription.queue} closed"
        if isinstance(error, aiormq.exceptions.ChannelClosed):
            self._lose(subscription, _explain(why, error))
        elif not subscription.is_lost:
            self.end(f"{why}: {error or 'by itself'}")

    def _lose(self, subscription: _Subscription, loss: Loss) -> None:
        if not subscription.is_lost:
            subscription.lose()
            self._tell(subscription, loss)

    def _tell(self, subscription: _Subscription, loss: Loss) -> None:
        if subscription.on_loss is None:
            self.end(loss.why)
        elif not self.has_ended:
            subscription.on_loss(loss)

    def _cancelled(self, subscription: _Subscription) -> None:
        """What it has brought is void from now on, though its channel is open."""
        if not subscription.is_lost:
            subscription.lose()
            self._watch(self._leave(subscription))

    async def _leave(self, subscription: _Subscription) -> None:
        loss = await self._why_cancelled(subscription)
        try:
            async with deadline(LOOK_TIMEOUT, f"close the channel of {subscription.queue}"):
                await subscription.channel.close()  # what else it holds goes back
        except LOST:
            self.end(loss.why)
        self._tell(subscription, loss)

    async def _why_cancelled(self, subscription: _Subscription) -> Loss:
        """The broker does not say why; what has become of the queue tells."""
        queue = subscription.queue
        why = f"RabbitMQ cancelled the consumer of {queue}"
        try:
            async with (
                self._connection.scratch_channel() as channel,
                deadline(LOOK_TIMEOUT, f"look for {queue}"),
            ):
                await channel.queue_declare(queue, passive=True)
        except aiormq.exceptions.ChannelNotFoundEntity:
            return Loss(f"{why}: the queue was deleted")
        except (*LOST, BrokerJobsError):
            return Loss(why)
        limit = subscription.arguments.get(CONSUMER_TIMEOUT)
        return Loss(f"{why}, which is still there: {_taken_back(limit)}", is_late=True)


@dataclass(slots=True, eq=False)
class _Subscription:
    """A queue that is consumed, or shall be: then its `tag` is empty."""

    name: str
    queue: str
    prefetch: int
    on_delivery: OnDelivery
    on_loss: OnLoss | None
    has_session_ended: Callable[[], bool]
    arguments: dict[str, Any] = field(default_factory=dict)
    channel: AbstractChannel = field(init=False)
    inlet: Inlet | None = None
    tag: str = ""
    has_begun: bool = False
    is_counting: bool | None = None
    is_lost: bool = False

    def is_void(self) -> bool:
        """Whether what it has brought cannot be answered any more."""
        return self.is_lost or self.has_session_ended()

    def flush(self) -> None:
        """Send the answers that have been given."""
        if self.inlet is not None:
            self.inlet.acks.flush()

    def lose(self) -> None:
        """Take and answer nothing more of what this channel brings."""
        self.is_lost, self.tag = True, ""
        if self.inlet is not None:
            self.inlet.acks.flush()
            self.inlet.acks.close()


def _streams_of(connection: Connection) -> TappedStreams | None:
    """Where deliveries can be taken from; None where only the client library can be asked for them."""
    if connection.streams is not None and agrees_with_client():
        return connection.streams
    log.warning(
        "fast lane is off",
        hint="brokerjobs does not know this release of aiormq or pamqp: deliveries go through it, at more CPU",
    )
    return None


def _explain(what: str, error: BaseException) -> Loss:
    said = reply_text(error)
    if "delivery acknowledgement" not in said:
        return Loss(f"{what}: {said}")
    limit = _LIMIT.search(said)
    return Loss(f"{what}: {_taken_back(int(limit[1]) if limit else None)}", is_late=True)


def _taken_back(limit: int | None) -> str:
    return TAKEN_BACK.format(within=f"within {text(limit / 1000)}" if limit else "in time")


async def _closed(channel: AbstractChannel) -> Exception | None:
    """Return when it has closed; with what closed it, if that was an error."""
    try:
        await asyncio.shield(channel.closing)
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise
    except Exception as error:
        return error
    return None
