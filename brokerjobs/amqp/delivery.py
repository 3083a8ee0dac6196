"""One arrival of a message: what came, and the one answer that it gets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Protocol

from aiormq.abc import AbstractChannel, DeliveredMessage

from brokerjobs.amqp import guard
from brokerjobs.amqp.alike import Alike
from brokerjobs.amqp.connection import LOST, ConnectionLost, deadline
from brokerjobs.amqp.frames import read_deliver, read_route
from brokerjobs.amqp.properties import read_content_header
from brokerjobs.amqp.wire import from_pamqp, from_wire
from brokerjobs.message import PROBLEMS, Message, decode, timestamp_of

STEP_TIMEOUT = 15.0  # seconds


class Arrival(Protocol):
    """What came, and the number by which it is answered."""

    @property
    def tag(self) -> int: ...
    @property
    def redelivered(self) -> bool: ...
    @property
    def body(self) -> bytes: ...
    @property
    def exchange(self) -> str: ...
    @property
    def routing_key(self) -> str: ...
    @property
    def properties(self) -> Mapping[str, Any]: ...
    def read(self) -> tuple[Message, object]: ...


class FromFrames:
    """Read from the frames themselves; what is asked for late, or never, is read late.

    Args:
        method: the payload of Basic.Deliver.
        head: the payload of the content header.
        body: all of it.
        alike: knows messages of its queue.
    """

    __slots__ = ("_alike", "_head", "_properties", "_rest", "body", "redelivered", "tag")

    def __init__(self, method: bytes, head: bytes, body: bytes, alike: Alike) -> None:
        self.tag, self.redelivered, self._rest = read_deliver(method)
        self._head = head
        self._alike = alike
        self.body = body
        self._properties: dict[str, Any] | None = None

    @property
    def exchange(self) -> str:
        return read_route(self._rest)[0].decode(errors="backslashreplace")

    @property
    def routing_key(self) -> str:
        return read_route(self._rest)[1].decode(errors="backslashreplace")

    @property
    def properties(self) -> Mapping[str, Any]:
        if self._properties is None:
            read = read_content_header(self._head)
            self._properties = from_wire(read.properties)
            if read.problems or not self._rest.isascii():
                self._tell_problems(read.problems)
        return self._properties

    def read(self) -> tuple[Message, object]:
        if (message := self._alike.read(self._rest, self._head, self.body)) is not None:
            return message, message.timestamp
        message, sent = read_whole(self)
        self._alike.learn(self._rest, self._head, message)
        return message, sent

    def _tell_problems(self, of_properties: str) -> None:
        assert self._properties is not None
        if problems := guard.told(self._garbled(), of_properties):
            self._properties[PROBLEMS] = problems

    def _garbled(self) -> Iterator[tuple[str, str]]:
        """What of the route is not UTF-8."""
        for what, raw in zip(("exchange", "routing key"), read_route(self._rest), strict=True):
            if (text := raw.decode(errors="backslashreplace")).encode() != raw:
                yield what, text


class FromClient:
    """As the client library has read it."""

    __slots__ = ("_message",)

    def __init__(self, message: DeliveredMessage) -> None:
        self._message = message

    @property
    def tag(self) -> int:
        return self._message.delivery.delivery_tag  # type: ignore[union-attr, return-value]

    @property
    def redelivered(self) -> bool:
        return bool(self._message.delivery.redelivered)  # type: ignore[union-attr]

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
    def properties(self) -> Mapping[str, Any]:
        found = from_pamqp(self._message.header.properties)
        if problems := guard.problems_of(self._message.delivery, self._message.header.properties):
            found[PROBLEMS] = problems
        return found

    def read(self) -> tuple[Message, object]:
        return read_whole(self)


def read_whole(arrival: Arrival | Delivery) -> tuple[Message, object]:
    """What `Delivery.read` gives, from all properties."""
    properties = arrival.properties
    message = decode(properties, arrival.body, routing_key=arrival.routing_key)
    return message, timestamp_of(properties) if properties.get("message_id") else None


class Settling(Protocol):
    """Answers deliveries of one channel; gives something to wait for, or None when that is not needed."""

    def ack(self, tag: int) -> Awaitable[object] | None: ...
    def requeue(self, tag: int) -> Awaitable[object] | None: ...


class ByClient:
    """Answers through the client library."""

    def __init__(self, channel: AbstractChannel) -> None:
        self._channel = channel

    def ack(self, tag: int) -> Awaitable[object]:
        return self._channel.basic_ack(tag, wait=False)

    def requeue(self, tag: int) -> Awaitable[object]:
        return self._channel.basic_nack(tag, requeue=True, wait=False)


class Delivery:
    """One arrival of a message at this worker; it is settled at most once.

    Args:
        queue: as users say it.
        arrival: what came.
        settling: answers it.
        is_over: whether the session that brought it has ended.
        is_counted: whether its queue counts deliveries, and says so in `x-delivery-count`: a quorum queue; None where
            that is unknown.
    """

    __slots__ = ("_arrival", "_is_over", "_settling", "is_counted", "is_settled", "queue")

    def __init__(
        self,
        queue: str,
        arrival: Arrival,
        settling: Settling,
        is_over: Callable[[], bool],
        *,
        is_counted: bool | None = None,
    ) -> None:
        self.queue = queue
        self.is_settled = False
        self.is_counted = is_counted
        self._arrival = arrival
        self._settling = settling
        self._is_over = is_over

    @property
    def body(self) -> bytes:
        return self._arrival.body

    @property
    def exchange(self) -> str:
        return self._arrival.exchange

    @property
    def routing_key(self) -> str:
        return self._arrival.routing_key

    @property
    def redelivered(self) -> bool:
        return self._arrival.redelivered

    @property
    def properties(self) -> Mapping[str, Any]:
        return self._arrival.properties

    def read(self) -> tuple[Message, object]:
        """The message, and when it says it was sent; None for that of one without an id, which is minted here.

        Raises:
            UndecodableMessage: it cannot be read; or whatever an unforeseen message makes a decoder raise.
        """
        return self._arrival.read()

    @property
    def is_live(self) -> bool:
        """Whether it can still be settled: its session lasts and nobody has settled it."""
        return not self.is_settled and not self._is_over()

    async def ack(self) -> None:
        """Tell the broker that it is done with.

        Raises:
            ConnectionLost: the broker will deliver it again.
        """
        self._settle()
        if (sending := self._settling.ack(self._arrival.tag)) is not None:
            await _sent(sending)

    async def requeue(self) -> None:
        """Give it back to its queue (nack).

        Raises:
            ConnectionLost: the broker gives it back by itself.
        """
        self._settle()
        if (sending := self._settling.requeue(self._arrival.tag)) is not None:
            await _sent(sending)

    def _settle(self) -> None:
        if self._is_over():
            raise ConnectionLost("the session of this delivery has ended")
        if self.is_settled:
            raise AssertionError("settled twice: the broker would close the channel (406)")
        self.is_settled = True


async def _sent(sending: Awaitable[object]) -> None:
    try:
        async with deadline(STEP_TIMEOUT, "settle a delivery"):
            await sending
    except LOST as error:
        raise ConnectionLost(str(error)) from None
