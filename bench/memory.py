"""RabbitMQ's side of a connection, in memory: any client takes it for a broker, and no other process disturbs a figure.

An event loop whose connections all lead here: what a client writes is answered in the next turn of the loop. There is
one queue, of messages whose frames are made before anything is measured. What the answers themselves cost is not
counted as the client's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from struct import unpack_from
from typing import Any, TypeAlias

import pamqp.frame
import uvloop
from pamqp import body, commands, header

QUEUE = "bench"
AT_ONCE = 40  # deliveries in one read, of some 400 bytes each, as from a socket
PUBLISH, ACK = b"\x00\x3c\x00\x28", b"\x00\x3c\x00\x50"
NOT_FOUND = commands.Channel.Close(404, "NOT_FOUND - no such queue", 60, 20)
FRAME_MAX = 131_072
PROPERTIES: Any = {
    "product": "RabbitMQ",
    "version": "4.3.0",
    "capabilities": {
        "publisher_confirms": True, "basic.nack": True, "consumer_cancel_notify": True, "per_consumer_qos": True,
        "authentication_failure_close": True, "connection.blocked": True, "exchange_exchange_bindings": True,
    },
}  # fmt: skip


Content: TypeAlias = tuple[commands.Basic.Properties, bytes]


class Broker:
    """What happens at all connections of a loop.

    Attributes:
        messages: that wait in the queue: of each its properties and its body.
        acknowledged: deliveries so far.
        published: messages so far.
        writes: of the clients.
        seconds: of CPU that was spent here.
        is_busy: whether it works now, and not a client.
    """

    def __init__(self, messages: Sequence[Content] = ()) -> None:
        self.messages = messages
        self.acknowledged = self.published = self.writes = 0
        self.seconds = 0.0
        self.is_busy = False
        self.queues = {QUEUE}
        self.names = 0
        self.transports: list[Transport] = []
        self._is_drained: asyncio.Event | None = None  # until then nothing is delivered

    async def drained(self) -> None:
        """Deliver all messages; return when they are acknowledged."""
        self._is_drained = asyncio.Event()
        for transport in self.transports:
            transport.wake()
        await self._is_drained.wait()

    @property
    def delivers(self) -> bool:
        return self._is_drained is not None

    def acknowledge(self) -> None:
        self.acknowledged += 1
        if self.acknowledged == len(self.messages) and self._is_drained is not None:
            self._is_drained.set()


class Loop(uvloop.Loop):
    """An event loop whose connections lead to one broker."""

    def __init__(self, broker: Broker) -> None:
        super().__init__()
        self._broker = broker

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.Protocol], *_: object, **__: object
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        protocol = protocol_factory()
        transport = Transport(self, protocol, self._broker)
        protocol.connection_made(transport)
        return transport, protocol


class Transport(asyncio.Transport):
    """One connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol, broker: Broker) -> None:
        super().__init__()
        self._loop = loop
        self._protocol = protocol
        self._broker = broker
        self._is_closing = False
        self._unread: list[bytes] = []
        self._channels: dict[int, Channel] = {}
        broker.transports.append(self)

    def wake(self) -> None:
        """Send what there is to send."""
        self._loop.call_soon(self._answer)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._broker.writes += 1
        if not self._unread and not self._is_closing:
            self._loop.call_soon(self._answer)
        self._unread.append(bytes(data))

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))

    def _answer(self) -> None:
        broker, began = self._broker, time.thread_time()
        broker.is_busy = True
        data, self._unread = b"".join(self._unread), []
        answers = self._answers(data)
        broker.is_busy = False
        broker.seconds += time.thread_time() - began
        for answer in answers:
            self._loop.call_soon(self._receive, answer)

    def _receive(self, data: bytes) -> None:
        if not self._is_closing:
            self._protocol.data_received(data)

    def _answers(self, data: bytes) -> list[bytes]:
        if data.startswith(b"AMQP"):
            return [_frame(commands.Connection.Start(server_properties=PROPERTIES), 0)]
        answers, at = [], 0
        while at < len(data):
            kind, number, size = unpack_from(">BHI", data, at)
            if kind == 1:
                channel = self._channels.setdefault(number, Channel(number, self._broker))
                answers.append(channel.heed(data, at, at + 8 + size))
            at += 8 + size
        answers += [channel.confirms() for channel in self._channels.values()]
        for channel in list(self._channels.values()):
            answers += channel.deliveries()
        return [answer for answer in answers if answer]

    # -- what clients ask of a transport

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._loop.call_soon(self._protocol.connection_lost, None)

    abort = close

    def is_closing(self) -> bool:
        return self._is_closing

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("memory", 0) if name in ("peername", "sockname") else default


class Channel:
    """Answers the methods of one channel."""

    def __init__(self, number: int, broker: Broker) -> None:
        self._number = number
        self._broker = broker
        self._prefetch = 1
        self._waiting: Iterator[bytes] = iter(())  # deliveries, as frames
        self._delivered = 0
        self._unsettled: dict[int, None] = {}  # tags, lowest first
        self._published = self._confirmed = 0

    def heed(self, data: bytes, at: int, end: int) -> bytes:
        """Take one method in; gives the answer."""
        method = data[at + 7 : at + 11]
        if method == PUBLISH:
            self._published += 1
            return b""
        if method == ACK:
            tag, multiple = unpack_from(">QB", data, at + 11)
            for each in [each for each in self._unsettled if each <= tag] if multiple else [tag]:
                del self._unsettled[each]
                self._broker.acknowledge()
            return b""
        answer = self._answer(pamqp.frame.unmarshal(data[at:end])[2])
        return _frame(answer, self._number) if answer is not None else b""

    def confirms(self) -> bytes:
        if self._published == self._confirmed:
            return b""
        self._broker.published += self._published - self._confirmed
        self._confirmed = self._published
        return _frame(commands.Basic.Ack(self._confirmed, multiple=True), self._number)

    def deliveries(self) -> list[bytes]:
        """As many as may be held, in chunks as they are read from a socket."""
        found: list[bytes] = []
        while self._broker.delivers and (room := min(AT_ONCE, self._prefetch - len(self._unsettled))):
            chunk = list(islice(self._waiting, room))
            if not chunk:
                break
            for _ in chunk:
                self._delivered += 1
                self._unsettled[self._delivered] = None
            found.append(b"".join(chunk))
        return found

    def _answer(self, asked: Any) -> Any:  # noqa: C901, PLR0911, PLR0912  (one line for each method)
        match asked:
            case commands.Connection.StartOk():
                return commands.Connection.Tune(2047, FRAME_MAX, 0)
            case commands.Connection.Open():
                return commands.Connection.OpenOk()
            case commands.Connection.Close():
                return commands.Connection.CloseOk()
            case commands.Channel.Open():
                return commands.Channel.OpenOk()
            case commands.Channel.Close():
                self._waiting = iter(())
                return commands.Channel.CloseOk()
            case commands.Confirm.Select():
                return commands.Confirm.SelectOk()
            case commands.Exchange.Declare():
                return commands.Exchange.DeclareOk()
            case commands.Exchange.Bind():
                return commands.Exchange.BindOk()
            case commands.Queue.Declare():
                return self._declare(asked)
            case commands.Queue.Bind():
                return commands.Queue.BindOk()
            case commands.Queue.Unbind():
                return commands.Queue.UnbindOk()
            case commands.Queue.Delete():
                return commands.Queue.DeleteOk(0)
            case commands.Basic.Qos():
                self._prefetch = asked.prefetch_count or FRAME_MAX
                return commands.Basic.QosOk()
            case commands.Basic.Consume():
                return self._consume(asked)
            case commands.Basic.Cancel():
                self._waiting = iter(())
                return commands.Basic.CancelOk(asked.consumer_tag)
        return None

    def _declare(self, asked: commands.Queue.Declare) -> Any:
        broker = self._broker
        if asked.passive and asked.queue not in broker.queues:
            return NOT_FOUND
        broker.names += not asked.queue
        name = asked.queue or f"amq.gen-{broker.names}"
        broker.queues.add(name)
        return commands.Queue.DeclareOk(name, 0, 0)

    def _consume(self, asked: commands.Basic.Consume) -> Any:
        if asked.queue not in self._broker.queues:
            return NOT_FOUND
        tag = asked.consumer_tag or f"amq.ctag-{self._number}"
        if asked.queue == QUEUE:
            frames = [
                self._frames(tag, number, message) for number, message in enumerate(self._broker.messages, 1)
            ]
            self._waiting = iter(frames)
        return commands.Basic.ConsumeOk(tag)

    def _frames(self, consumer: str, number: int, message: Content) -> bytes:
        properties, raw = message
        deliver = commands.Basic.Deliver(consumer, number, False, "jobs", f"{QUEUE}.run")
        head = header.ContentHeader(body_size=len(raw), properties=properties)
        return b"".join(_frame(each, self._number) for each in (deliver, head, body.ContentBody(raw)))


def _frame(frame: Any, channel: int) -> bytes:
    return pamqp.frame.marshal(frame, channel)
