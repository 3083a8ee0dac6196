"""A message as the frames that publish it (AMQP 0-9-1, 1.8.3.7 and 4.2.6).

What a library does for every message, an object of each frame and of the properties, is left out. Of two messages of a
job nothing differs but the id, the time and the body: all else is written once, and put around these.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from struct import Struct, error
from typing import Any

from brokerjobs.amqp.frames import BODY, HEADER, METHOD, OVERHEAD, frame
from brokerjobs.message import Message

_PUBLISH = b"\x00\x3c\x00\x28\x00\x00"  # Basic.Publish, and a field that is no longer used
_MANDATORY = b"\x01"
_CONTENT = Struct(">HHQH")
_SIZES = Struct(">IHHQ")  # of a content header's frame: its payload's, then class, weight and the body's
_FRAME_OF, _SHORT = Struct(">BH"), Struct(">H")
_LONG, _LONG_LONG, _SHORT_TABLE_INT, _TABLE_INT = Struct(">I"), Struct(">Q"), Struct(">ci"), Struct(">cq")
_SHORT_STRING, _OCTET, _TIME, _TABLE = "short string", "octet", "time", "table"

# By the names of `Message.properties`, in the order of the wire, from the highest bit of the flags.
_FORMS = {
    "content_type": _SHORT_STRING,
    "content_encoding": _SHORT_STRING,
    "headers": _TABLE,
    "delivery_mode": _OCTET,
    "priority": _OCTET,
    "correlation_id": _SHORT_STRING,
    "reply_to": _SHORT_STRING,
    "expiration": _SHORT_STRING,
    "message_id": _SHORT_STRING,
    "timestamp": _TIME,
    "type": _SHORT_STRING,
    "user_id": _SHORT_STRING,
    "app_id": _SHORT_STRING,
}
_LENGTHS = tuple(bytes((length,)) for length in range(256))
_FLAGS = {name: 1 << (15 - place) for place, name in enumerate(_FORMS)}
_UP_TO_ID = tuple(_FORMS)[: tuple(_FORMS).index("message_id")]
_AFTER_TIME = tuple(_FORMS)[tuple(_FORMS).index("timestamp") + 1 :]
MOST_KNOWN = 256  # envelopes of a channel, of some 200 bytes each
# What a client library must read as it is, before anything is sent past it: alike, and one of a kind.
SAMPLES = (
    Message(job="a.b", routing_key="a.b", id="7", body=b"{}"),
    Message(job="a.b", routing_key="a.b", id="8", body=b"{}", headers={"n": 7, "s": "x", "yes": True}),
)


class Unwritable(ValueError):
    """AMQP has no form for it."""


class Envelopes:
    """Writes the messages of one channel.

    Args:
        channel: its number.
        largest: bytes of a frame.
    """

    def __init__(self, channel: int, largest: int) -> None:
        self._channel = channel
        self._largest = largest
        self._room = largest - OVERHEAD
        self._known: dict[Any, tuple[bytes, int, bytes, bytes]] = {}

    def frames(self, exchange: str, routing_key: str, message: Message) -> Sequence[bytes]:
        """What publishes a message, mandatory: bytes to send one after another.

        Raises:
            Unwritable: AMQP has no form for it.
        """
        alike, body = message.alike(), message.body
        size = len(body)
        if alike is None or not 0 < size <= self._room:
            return self._one_of_a_kind(exchange, routing_key, message)
        try:
            known = self._known.get((exchange, routing_key, alike))
            if known is None:
                known = self._learn(exchange, routing_key, message)
            front, fixed, middle, back = known
            id, time = _short("message_id", message.id), _LONG_LONG.pack(message.timestamp)
            sizes = _SIZES.pack(fixed + len(id), 60, 0, size)
            return (b"".join((front, sizes, middle, id, time, back, _LONG.pack(size), body, b"\xce")),)
        except (error, TypeError):  # which says less than what is raised there
            return self._one_of_a_kind(exchange, routing_key, message)

    def _one_of_a_kind(self, exchange: str, routing_key: str, message: Message) -> Sequence[bytes]:
        if not isinstance(message.body, (bytes, bytearray, memoryview)):
            raise Unwritable(f"the body is {type(message.body).__name__}, not bytes")
        first = publish(self._channel, exchange, routing_key)
        return [first, *content(self._channel, message.properties(), message.body, self._largest)]

    def _learn(self, exchange: str, routing_key: str, message: Message) -> tuple[bytes, int, bytes, bytes]:
        properties = message.properties()
        before, after = _written(properties, _UP_TO_ID), _written(properties, _AFTER_TIME)
        known = (
            publish(self._channel, exchange, routing_key) + _FRAME_OF.pack(HEADER, self._channel),
            _CONTENT.size + len(before) + _LONG_LONG.size + len(after),
            _SHORT.pack(_flags(properties | {"message_id": "", "timestamp": 0})) + before,
            after + b"\xce" + _FRAME_OF.pack(BODY, self._channel),
        )
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[exchange, routing_key, message.alike()] = known
        return known


@lru_cache(1024)
def publish(channel: int, exchange: str, routing_key: str) -> bytes:
    """The first frame of a mandatory message on this route.

    Raises:
        Unwritable: a name is longer than 255 bytes.
    """
    names = _short("the exchange", exchange) + _short("the routing key", routing_key)
    return frame(METHOD, channel, _PUBLISH + names + _MANDATORY)


def content(channel: int, properties: Mapping[str, Any], body: bytes, largest: int) -> list[bytes]:
    """The frames that follow: the header, and the body in as many parts as it takes.

    Args:
        channel: its number.
        properties: as `Message.properties` gives them.
        body: all of it.
        largest: bytes of a frame.

    Raises:
        Unwritable: what cannot be written.
    """
    frames = [frame(HEADER, channel, header(properties, len(body)))]
    room = largest - OVERHEAD
    if len(body) <= room:
        if body:
            frames.append(frame(BODY, channel, body))
    else:
        frames += [frame(BODY, channel, body[at : at + room]) for at in range(0, len(body), room)]
    return frames


def header(properties: Mapping[str, Any], body_size: int) -> bytes:
    """The payload of a content header.

    Raises:
        Unwritable: what cannot be written.
    """
    return _CONTENT.pack(60, 0, body_size, _flags(properties)) + _written(properties, _FORMS)


def _flags(properties: Mapping[str, Any]) -> int:
    return sum(flag for name, flag in _FLAGS.items() if properties.get(name) is not None)


def _written(properties: Mapping[str, Any], names: Iterable[str]) -> bytes:
    """Those of these names, which are in the order of the wire."""
    return b"".join([_property(name, value) for name in names if (value := properties.get(name)) is not None])


def _property(name: str, value: Any) -> bytes:
    form = _FORMS[name]
    if form is _SHORT_STRING:
        return _short(name, value)
    if form is _TABLE:
        return _table(value)
    try:
        return bytes((value,)) if form is _OCTET else _LONG_LONG.pack(value)
    except (ValueError, TypeError, error) as wrong:
        raise Unwritable(f"{name} {value!r}: {wrong}") from None


def _short(name: str, text: str) -> bytes:
    try:
        raw = text.encode()
        return _LENGTHS[len(raw)] + raw
    except IndexError:
        raise Unwritable(f"{name} is longer than 255 bytes") from None
    except (UnicodeEncodeError, AttributeError) as wrong:
        raise Unwritable(f"{name}: {wrong}") from None


def _table(headers: Mapping[str, Any]) -> bytes:
    entries = b"".join(
        [_short("a header's name", name) + _value(name, value) for name, value in headers.items()]
    )
    return _LONG.pack(len(entries)) + entries


def _value(name: str, value: Any) -> bytes:
    match value:
        case str():
            try:
                raw = value.encode()
            except UnicodeEncodeError as wrong:
                raise Unwritable(f"header {name!r}: {wrong}") from None
            return b"S" + _LONG.pack(len(raw)) + raw
        case bool():
            return b"t\x01" if value else b"t\x00"
        case int() if -(2**31) <= value < 2**31:
            return _SHORT_TABLE_INT.pack(b"I", value)
        case int() if -(2**63) <= value < 2**63:
            return _TABLE_INT.pack(b"l", value)
    raise Unwritable(f"header {name!r} is {type(value).__name__}, not str, bool or an int of 64 bits")
