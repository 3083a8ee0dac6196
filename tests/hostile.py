"""Messages as no client library makes them, written to the wire byte by byte."""

from __future__ import annotations

from struct import pack
from typing import Any

import pika

from tests import amqp


def short(raw: bytes) -> bytes:
    return bytes([len(raw)]) + raw


def table(raw: bytes) -> bytes:
    """With its length; long strings and arrays look alike."""
    return pack(">I", len(raw)) + raw


def headers(raw: bytes) -> bytes:
    """Properties that are headers alone."""
    return pack(">H", 0x2000) + table(raw)


def nested(levels: int) -> bytes:
    inner = b""
    for _ in range(levels):
        inner = b"\x01aF" + table(inner)
    return inner


# What RabbitMQ passes on and the client library gives its connection up for, with words of what is said about it.
UNREADABLE: dict[str, tuple[bytes, str]] = {
    "microseconds": (pack(">HQ", 0x40, 10**15), "timestamp is a time beyond the year 9999: 1000000000000000"),
    "latest time": (pack(">HQ", 0x40, 2**64 - 1), "timestamp is a time beyond the year 9999"),
    "id": (pack(">H", 0x80) + short(b"caf\xe9"), r"message_id is not UTF-8: b'caf\xe9'"),
    "type": (pack(">H", 0x20) + short(b"\xff"), r"type is not UTF-8: b'\xff'"),
    "content type": (pack(">H", 0x8000) + short(b"\xff"), "content_type is not UTF-8"),
    "app": (pack(">H", 0x8) + short(b"\xff"), "app_id is not UTF-8"),
    "header name": (headers(short(b"k\xff") + b"V"), r"the name of a header is not UTF-8: b'k\xff'"),
    "header time": (headers(short(b"born") + b"T" + pack(">Q", 10**18)), "header 'born' is a time beyond"),
    "inner time": (
        headers(short(b"a") + b"A" + table(b"T" + pack(">Q", 2**64 - 1))),
        "header 'a' is a time beyond the year 9999",
    ),
    "nested": (headers(nested(5_000)), "header 'a' is nested deeper than 64 levels"),
}


class _Raw(pika.BasicProperties):
    def __init__(self, raw: bytes) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._raw = raw

    def encode(self) -> list[bytes]:
        return [self._raw]


def publish(
    url: str, routing_key: str | bytes, body: bytes, properties: bytes, exchange: str = "jobs"
) -> None:
    """Publish with exactly these bytes as properties, and with this routing key, be it text or not."""
    with amqp.channel(url) as channel:
        channel.confirm_delivery()
        key: Any = routing_key
        channel.basic_publish(exchange, key, body, _Raw(properties), mandatory=True)


# What can be read, and must not harm whoever passes it on.
ODD: dict[str, bytes] = {
    "all kinds": headers(
        b"".join(
            short(kind.encode()) + kind.encode() + value
            for kind, value in {
                "t": b"\x01",
                "b": b"\xff",
                "B": b"\xff",
                "s": b"\xff\xfe",
                "u": b"\xff\xfe",
                "I": b"\xff\xfe\xfd\xfc",
                "i": b"\xff\xfe\xfd\xfc",
                "l": b"\x80\0\0\0\0\0\0\0",
                "f": pack(">f", 1.5),
                "d": pack(">d", -1e300),
                "D": pack(">BI", 255, 2**31 - 1),
                "S": table(b"\xff\xfe"),
                "x": table(b"\x00\xff"),
                "A": table(b"V" + b"A" + table(b"t\x01")),
                "F": table(short(b"in") + b"F" + table(b"")),
                "T": pack(">Q", 253402300799),
                "V": b"",
            }.items()
        )
    ),
    "nested": headers(nested(60)),
    "as long as may be": headers(short(b"k") + b"A" + table(b"V" * 100_000)),
    "names": headers(
        short(b"") + b"V" + short(b"n" * 255) + b"t\x01" + short("\U0001f40d".encode() * 63) + b"V"
    ),
    "one name twice": headers(short(b"k") + b"V" + short(b"k") + b"t\x01"),
    "routes": headers(
        short(b"CC") + b"A" + table(b"S" + table(b"q\xff")) + short(b"BCC") + b"A" + table(b"S" + table(b"q"))
    ),
    "deaths": headers(
        short(b"x-death") + b"A" + table(b"F" + table(short(b"queue") + b"S" + table(b"emails")))
    ),
    "a death of another kind": headers(short(b"x-death") + b"S" + table(b"emails")),
    "deliveries": headers(short(b"x-delivery-count") + b"S" + table(b"many")),
    "user": pack(">H", 0x10) + short(b"guest"),
    "cluster": pack(">H", 0x4) + short(b"\x00"),
    "highest priority": pack(">HB", 0x800, 255),
}
