"""Read a message's AMQP properties: in linear time, to a bounded depth, and never failing.

Whoever may publish decides what stands there, and RabbitMQ passes on more than client libraries read: text that is
not UTF-8, times beyond the year 9999, tables nested by the thousand, arrays that take them seconds. What cannot be
read is told in words; the rest is there.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from struct import Struct, error
from typing import Any, NamedTuple

MOST_DEPTH = 64  # tables and arrays within each other
MOST_PROBLEMS = 3  # told one by one

# In the order of the wire, by the names of pamqp; with the bit that tells whether it is there (AMQP 0-9-1, 4.2.6.1).
_PROPERTIES = tuple(
    (1 << bit, name)
    for bit, name in zip(
        range(15, 1, -1),
        (
            "content_type", "content_encoding", "headers", "delivery_mode", "priority", "correlation_id", "reply_to",
            "expiration", "message_id", "timestamp", "message_type", "user_id", "app_id", "cluster_id",
        ),
        strict=True,
    )
)  # fmt: skip


TEXT, _OCTET, _DATE, _HEADERS = "short text", "octet", "date", "table"
_FORMS = {"headers": _HEADERS, "delivery_mode": _OCTET, "priority": _OCTET, "timestamp": _DATE}


@lru_cache(256)  # publishers set few combinations
def present(flags: int) -> tuple[tuple[str, str], ...]:
    """The properties that are set, and of each its form."""
    return tuple((name, _FORMS.get(name, TEXT)) for flag, name in _PROPERTIES if flags & flag)


def bits_of(*names: str) -> int:
    """The flags that tell of these."""
    return sum(flag for flag, name in _PROPERTIES if name in names)


_START = Struct(">HHQ")
PROPERTIES_AT = _START.size  # bytes of a content header before them
_FLAGS, _LENGTH, _TIME, _DECIMAL = Struct(">H"), Struct(">I"), Struct(">Q"), Struct(">BI")
_FIXED = {
    ord(kind): Struct(f">{form}")
    for kind, form in {
        "t": "?", "b": "b", "B": "B", "s": "h", "u": "H", "I": "i", "i": "I", "l": "q", "L": "q", "f": "f", "d": "d",
    }.items()
}  # fmt: skip


class ContentHeader(NamedTuple):
    r"""What stands before a body.

    Args:
        class_id: of AMQP.
        weight: unused.
        body_size: bytes.
        properties: those that are set, by the names of pamqp; of text that is not UTF-8, the odd
            bytes are spelled as in Python, `\xff`. The timestamp as a number, seconds since 1970.
        problems: what could not be read, in words.
    """

    class_id: int
    weight: int
    body_size: int
    properties: dict[str, Any]
    problems: str


class _CutOff(Exception):
    """The data end within a value."""


def read_content_header(data: bytes) -> ContentHeader:
    """The content header in a frame's payload.

    Raises:
        ValueError: it is too short to tell even how long the body is: no message's fault, the stream is broken.
    """
    try:
        class_id, weight, body_size = _START.unpack_from(data)
    except error:
        raise ValueError("the content header is cut off") from None
    reader = _Reader(data)
    properties = reader.properties(PROPERTIES_AT)
    return ContentHeader(class_id, weight, body_size, properties, reader.problems)


def date_of(since_1970: int) -> datetime | int:
    """When that was; itself where it is beyond the year 9999."""
    try:  # like the client library: beyond the year 2106 it must be milliseconds
        return datetime.fromtimestamp(since_1970 / 1000 if since_1970 > 0xFFFFFFFF else since_1970, UTC)
    except (ValueError, OverflowError, OSError):
        return since_1970


class _Reader:
    """Reads values at an offset; each method gives the value and the offset behind it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._end = len(data)
        self._problems: list[str] = []
        self._more = 0

    @property
    def problems(self) -> str:
        more = f"; and {self._more} more" if self._more else ""
        return "; ".join(self._problems) + more

    def properties(self, at: int) -> dict[str, Any]:
        """Those that the flags tell of; the flags of AMQP 0-9-1 fit into the first two bytes of them."""
        found: dict[str, Any] = {}
        data, end, name = self._data, self._end, "their flags"
        try:
            flags, at = self._flags(at)
            for name, form in present(flags):
                if at == end:
                    raise _CutOff
                if form is TEXT:
                    stop = at + 1 + data[at]
                    if stop > end:
                        raise _CutOff
                    raw = data[at + 1 : stop]
                    found[name] = raw.decode() if raw.isascii() else self._text(raw, name)
                    at = stop
                elif form is _OCTET:
                    found[name] = data[at]
                    at += 1
                elif form is _DATE:
                    found[name], at = self._seconds(at)
                else:
                    begin, at = self._span(at, end)
                    found[name] = self._table(begin, at, "", 0)
        except _CutOff:
            self._note(f"the properties are cut off at {name}")
        return found

    def _flags(self, at: int) -> tuple[int, int]:
        if at + _FLAGS.size <= self._end and not self._data[at + 1] & 1:
            return self._data[at] << 8 | self._data[at + 1], at + _FLAGS.size
        words: list[int] = []
        while not words or words[-1] & 1:  # the last bit tells that more follow
            if at + _FLAGS.size > self._end:
                raise _CutOff
            words += _FLAGS.unpack_from(self._data, at)
            at += _FLAGS.size
        return words[0], at

    def _table(self, at: int, end: int, header: str, depth: int) -> dict[str, Any]:
        """Each value under its name; `header` is the header that this table is part of, "" for all of them."""
        found: dict[str, Any] = {}
        data = self._data
        try:
            while at < end:
                stop = at + 1 + data[at]
                if stop >= end:
                    raise _CutOff
                name = self._text(data[at + 1 : stop], "the name of a header")
                found[name], at = self._value(stop, end, header or name, depth)
        except _CutOff:
            self._note(f"header {header!r} is cut off" if header else "the headers are cut off")
        return found

    def _array(self, at: int, end: int, header: str, depth: int) -> list[Any]:
        found = []
        try:
            while at < end:
                value, at = self._value(at, end, header, depth)
                found.append(value)
        except _CutOff:
            self._note(f"header {header!r} is cut off")
        return found

    def _value(self, at: int, end: int, header: str, depth: int) -> tuple[Any, int]:
        kind = self._data[at]
        at += 1
        if (fixed := _FIXED.get(kind)) is not None:
            stop = at + fixed.size
            if stop > end:
                raise _CutOff
            return fixed.unpack_from(self._data, at)[0], stop
        read = _KINDS.get(kind)
        if read is None:
            self._note(f"header {header!r} is of an unknown kind {bytes([kind])!r}")
            return None, end
        return read(self, at, end, header, depth)

    def _string(self, at: int, end: int, *_: Any) -> tuple[str | bytes, int]:
        at, stop = self._span(at, end)
        raw = self._data[at:stop]
        try:
            return raw.decode(), stop
        except UnicodeDecodeError:
            return raw, stop

    def _bytes(self, at: int, end: int, *_: Any) -> tuple[bytearray, int]:
        at, stop = self._span(at, end)
        return bytearray(self._data[at:stop]), stop

    def _decimal(self, at: int, end: int, *_: Any) -> tuple[Decimal, int]:
        if at + _DECIMAL.size > end:
            raise _CutOff
        places, digits = _DECIMAL.unpack_from(self._data, at)
        return Decimal(digits).scaleb(-places), at + _DECIMAL.size

    def _void(self, at: int, *_: Any) -> tuple[None, int]:
        return None, at

    def _header_time(self, at: int, end: int, header: str, _: int) -> tuple[datetime | int, int]:
        return self._time(at, end, f"header {header!r}")

    def _inner(self, at: int, end: int, header: str, depth: int) -> tuple[Any, int]:
        is_table = self._data[at - 1] == ord("F")
        at, stop = self._span(at, end)
        if depth == MOST_DEPTH:
            self._note(f"header {header!r} is nested deeper than {MOST_DEPTH} levels")
            return None, stop
        inner = self._table if is_table else self._array
        return inner(at, stop, header, depth + 1), stop

    def _span(self, at: int, end: int) -> tuple[int, int]:
        """Where that begins and ends before which its length stands."""
        begin = at + _LENGTH.size
        if begin > end:
            raise _CutOff
        stop = begin + _LENGTH.unpack_from(self._data, at)[0]
        if stop > end:
            raise _CutOff
        return begin, stop

    def _text(self, raw: bytes, what: str) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self._note(f"{what} is not UTF-8: {raw!r}")
            return raw.decode(errors="backslashreplace")

    def _seconds(self, at: int) -> tuple[int, int]:
        """The timestamp as it stands there: who asks for a date pays for it."""
        if at + _TIME.size > self._end:
            raise _CutOff
        (since_1970,) = _TIME.unpack_from(self._data, at)
        if since_1970 > 0xFFFFFFFF:
            self._time(at, self._end, "timestamp")
        return since_1970, at + _TIME.size

    def _time(self, at: int, end: int, what: str) -> tuple[datetime | int, int]:
        if at + _TIME.size > end:
            raise _CutOff
        (since_1970,) = _TIME.unpack_from(self._data, at)
        date = date_of(since_1970)
        if date is since_1970:
            self._note(
                f"{what} is a time beyond the year 9999: {since_1970}, where seconds since 1970 belong"
            )
        return date, at + _TIME.size

    def _note(self, problem: str) -> None:
        if len(self._problems) < MOST_PROBLEMS:
            self._problems.append(problem)
        else:
            self._more += 1


_KINDS: dict[int, Callable[..., tuple[Any, int]]] = {
    ord("S"): _Reader._string,
    ord("x"): _Reader._bytes,
    ord("D"): _Reader._decimal,
    ord("T"): _Reader._header_time,
    ord("A"): _Reader._inner,
    ord("F"): _Reader._inner,
    ord("V"): _Reader._void,
    0: _Reader._void,
}
