"""The frames of AMQP 0-9-1 that pass by the thousand, read from bytes and written to bytes (sections 2.3.5 and 4.2).

A library's codec makes an object of each frame. Three frames make a delivery, so that is where a consumer's time goes;
here a chunk of bytes is cut into frames, and of a frame only what is needed is read. No length is trusted.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
KINDS = frozenset((METHOD, HEADER, BODY, HEARTBEAT))
END = 0xCE
OVERHEAD = 8  # bytes of a frame around its payload
IDLE = b"\x08\x00\x00\x00\x00\x00\x00\xce"  # a heartbeat
# What each peer may send before both have agreed on more, and what RabbitMQ offers at most unless told otherwise.
LARGEST_UNTIL_TUNED = 131_072

DELIVER = b"\x00\x3c\x00\x3c"
ACK, NACK, RETURN = b"\x00\x3c\x00\x50", b"\x00\x3c\x00\x78", b"\x00\x3c\x00\x32"
CHANNEL_CLOSE, CHANNEL_CLOSE_OK = b"\x00\x14\x00\x28", b"\x00\x14\x00\x29"

# A payload of at most these bytes fits into a frame of any size that peers may agree on (AMQP 0-9-1, 4.2.3: 4,096).
SMALL = 4_096 - OVERHEAD

_FRAME = Struct(">BHI")
_CHANNEL = Struct(">H")
_HEADER = Struct(">HHQ")
_HEAD = Struct(">3sIHHQ")  # kind and channel, the size; and the content header
_BODY = Struct(">B3sI")  # the end of a frame; kind and channel of the next, and its size
_TAG = Struct(">QB")
_ANSWER = Struct(">BHI4sQBB")

Tap = Callable[[int, bytes, int, int], int]
"""Told of a frame of its channel: the kind, all data, and where in them its payload begins and ends.

Gives where the next frame begins that it has not taken; 0 when it takes nothing."""


class BrokenStream(ConnectionError):
    """What came is no AMQP."""


class Splitter:
    """Cuts a stream into frames as it comes; those that no tap takes it passes on.

    Args:
        largest: bytes of a payload at most.
    """

    def __init__(self, largest: int = LARGEST_UNTIL_TUNED) -> None:
        self.largest = largest
        self.taps: dict[int, Tap] = {}
        self.taken = 0  # how often something was not passed on
        self._rest = b""
        self._is_amqp: bool | None = None  # unknown until the first byte

    def feed(self, data: bytes) -> bytes:
        """Take in what has come; gives the frames to pass on, each whole.

        Raises:
            BrokenStream: a frame that cannot be one.
        """
        if not self._is_amqp and not self._begins_well(data):
            return data
        if self._rest:
            data, self._rest = self._rest + data, b""
        at, passed_to, end, taps = 0, 0, len(data), self.taps
        passed: list[bytes] = []
        while end - at >= OVERHEAD:
            kind, channel, size = _FRAME.unpack_from(data, at)
            stop = at + OVERHEAD + size
            if size > self.largest or kind not in KINDS:
                raise BrokenStream(f"RabbitMQ sent what is no frame: kind {kind}, {size} bytes")
            if stop > end:
                break
            tap = taps.get(channel)
            if tap is not None and (taken_to := tap(kind, data, at + 7, stop - 1)):
                self.taken += 1
                if passed_to < at:
                    passed.append(data[passed_to:at])
                passed_to = stop = taken_to
            at = stop
        self._rest = data[at:]
        return b"".join((*passed, data[passed_to:at]))

    def _begins_well(self, data: bytes) -> bool:
        """Whether a peer speaks AMQP; the client knows what to say of one that sends `AMQP0091`, or other words."""
        if self._is_amqp is None and data:
            self._is_amqp = data[0] in KINDS
        return bool(self._is_amqp)


class Content:
    """Gathers a message: the method that brings it, its header, its body in any number of parts.

    Args:
        method: the method's first four bytes.
        arrived: told of each message: the method's payload, the header's payload, the body.
    """

    __slots__ = ("_arrived", "_body", "_head", "_method", "_missing", "_wanted")

    def __init__(self, method: bytes, arrived: Callable[[bytes, bytes, bytes], object]) -> None:
        self._wanted = method
        self._arrived = arrived
        self._method: bytes | None = None
        self._head: bytes | None = None
        self._body: list[bytes] = []
        self._missing = 0

    def take(self, kind: int, data: bytes, at: int, end: int) -> int:
        """A tap; takes only what belongs to such a message, and that in its order.

        Raises:
            BrokenStream: a header that is none, or not due, or a body longer than it was said to be.
        """
        if data[at : at + 4] != self._wanted if kind == METHOD else self._method is None:
            return 0
        if data[end] != END:
            raise BrokenStream("RabbitMQ sent a frame without its end")
        if kind == METHOD:
            if taken_to := self._take_whole(data, at, end):
                return taken_to
            self._method, self._head = data[at:end], None
        elif kind == HEADER:
            self._begin(data[at:end])
        elif kind == BODY:
            self._add(data[at:end])
        else:
            raise BrokenStream("RabbitMQ sent a heartbeat within a message")
        return end + 1

    def _take_whole(self, data: bytes, at: int, end: int) -> int:
        """A message whose three frames are here, as is usual; 0 where it is another, or anything is odd about it."""
        begin, channel = end + 1, data[at - 6 : at - 4]
        if len(data) < begin + _HEAD.size:
            return 0
        start, head_size, _, _, size = _HEAD.unpack_from(data, begin)
        body = begin + 7 + head_size + OVERHEAD
        stop: int = body + size
        if (
            start != b"\x02" + channel
            or not _HEADER.size <= head_size <= SMALL
            or not 0 < size <= SMALL
            or stop >= len(data)
            or data[stop] != END
            or _BODY.unpack_from(data, body - OVERHEAD) != (END, b"\x03" + channel, size)
        ):
            return 0
        self._method = self._head = None
        self._arrived(data[at:end], data[begin + 7 : body - 8], data[body:stop])
        return stop + 1

    def _begin(self, head: bytes) -> None:
        if len(head) < _HEADER.size or self._head is not None:
            raise BrokenStream("RabbitMQ sent a content header that is cut off, or a second one")
        self._head, self._body = head, []
        self._missing = _HEADER.unpack_from(head)[2]
        if not self._missing:
            self._whole(b"")

    def _add(self, part: bytes) -> None:
        self._missing -= len(part)
        if self._head is None or self._missing < 0:
            raise BrokenStream(
                "RabbitMQ sent a body that belongs to no header, or more of it than it had said"
            )
        if not self._missing and not self._body:
            self._whole(part)
            return
        self._body.append(part)
        if not self._missing:
            self._whole(b"".join(self._body))

    def _whole(self, body: bytes) -> None:
        method, head = self._method, self._head
        assert method is not None
        assert head is not None
        self._method = self._head = None
        self._arrived(method, head, body)


def read_deliver(payload: bytes) -> tuple[int, bool, bytes]:
    """Of a Basic.Deliver: the delivery tag, whether it came before, and the rest, for `read_route`.

    Raises:
        BrokenStream: it is cut off.
    """
    at = 5 + payload[4] if len(payload) > 4 else 5
    if len(payload) < at + _TAG.size:
        raise BrokenStream("RabbitMQ sent a delivery that is cut off")
    tag, redelivered = _TAG.unpack_from(payload, at)
    return tag, redelivered & 1 == 1, payload[at + _TAG.size :]


def read_route(rest: bytes) -> tuple[bytes, bytes]:
    """The exchange and routing key, as the publisher spelled them.

    Raises:
        BrokenStream: they are cut off.
    """
    try:
        middle = 1 + rest[0]
        end = middle + 1 + rest[middle]
    except IndexError:
        raise BrokenStream("RabbitMQ sent a route that is cut off") from None
    if end > len(rest):
        raise BrokenStream("RabbitMQ sent a route that is cut off")
    return rest[1:middle], rest[middle + 1 : end]


def write_ack(channel: int, tag: int, *, multiple: bool = False) -> bytes:
    return _ANSWER.pack(METHOD, channel, 13, ACK, tag, multiple, END)


def write_requeue(channel: int, tag: int) -> bytes:
    return _ANSWER.pack(METHOD, channel, 13, NACK, tag, 2, END)  # multiple is bit 0, requeue bit 1


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return b"".join((_FRAME.pack(kind, channel, len(payload)), payload, b"\xce"))
