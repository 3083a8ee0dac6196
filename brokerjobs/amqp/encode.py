"""A message as the frames that publish it (AMQP 0-9-1, 1.8.3.7 and 4.2.6).

What a library does for every message, an object of each frame and of the properties, is left out; a route's first
frame is the same for all its messages, and written once.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from struct import Struct, error
from typing import Any

from brokerjobs.amqp.frames import BODY, HEADER, METHOD, OVERHEAD, frame

_PUBLISH = b"\x00\x3c\x00\x28\x00\x00"  # Basic.Publish, and a field that is no longer used
_MANDATORY = b"\x01"
_CONTENT = Struct(">HHQH")
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


class Unwritable(ValueError):
    """AMQP has no form for it."""


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
    flags, parts = 0, [b""]
    for name, form in _FORMS.items():
        value = properties.get(name)
        if value is None:
            continue
        flags |= _FLAGS[name]
        if form is _SHORT_STRING:
            parts.append(_short(name, value))
        else:
            parts.append(_property(name, form, value))
    parts[0] = _CONTENT.pack(60, 0, body_size, flags)
    return b"".join(parts)


def _property(name: str, form: str, value: Any) -> bytes:
    if form is _TABLE:
        return _table(value)
    try:
        return bytes((value,)) if form is _OCTET else _LONG_LONG.pack(value)
    except (ValueError, TypeError, error) as wrong:
        raise Unwritable(f"{name} {value!r}: {wrong}") from None


def _short(name: str, text: str) -> bytes:
    raw = _utf8(name, text)
    if len(raw) > 255:
        raise Unwritable(f"{name} is longer than 255 bytes")
    return _LENGTHS[len(raw)] + raw


def _utf8(name: str, text: str) -> bytes:
    try:
        return text.encode()
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
            raw = _utf8(f"header {name!r}", value)
            return b"S" + _LONG.pack(len(raw)) + raw
        case bool():
            return b"t\x01" if value else b"t\x00"
        case int() if -(2**31) <= value < 2**31:
            return _SHORT_TABLE_INT.pack(b"I", value)
        case int() if -(2**63) <= value < 2**63:
            return _TABLE_INT.pack(b"l", value)
    raise Unwritable(f"header {name!r} is {type(value).__name__}, not str, bool or an int of 64 bits")
