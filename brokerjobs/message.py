"""A message: one request to run a job, as it travels in AMQP. See docs/wire-format.md.

A message typed by hand into RabbitMQ's management page is a valid job: everything but the routing key
and the body has a default.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform

from brokerjobs import delay
from brokerjobs.errors import UndecodableMessage
from brokerjobs.failure import ERROR_LIMIT, TRACEBACK_LIMIT, cut
from brokerjobs.payload import JSON

T = TypeVar("T")
Properties = dict[str, Any]
"""AMQP basic properties by the names that pika and pamqp share; `timestamp` in whole seconds."""

NORMAL_PRIORITY = 4
PREFIX = "brokerjobs-"
PROBLEMS = "problems"  # beside the properties of a delivery: what could not be read of them, in words
HEADERS_LIMIT = 60 * 1024  # bytes; 140 KiB of headers killed the connection (measured on 3.10)
HISTORY_LIMIT = 8 * 1024  # bytes
NAME_LIMIT = 128  # bytes of a header's name (AMQP 0-9-1, 4.2.5.5)
SHORT_LIMIT = 255  # bytes of what AMQP calls a short string
# Milliseconds since the epoch in the year 9892: a clock beyond is a mistake, and Python's dates end soon after.
LATEST = 250_000_000_000_000

_NUMBERS = (
    "attempt",
    "generation",
    "hop",
    "due",
    "not-before",
    "not-after",
    "first-at",
    "unknown",
    "died-at",
    "crashes",
    "redeliveries",
)
_NO_NUMBERS = (1, *[0] * (len(_NUMBERS) - 1))
_numbers = attrgetter(*(name.replace("-", "_") for name in _NUMBERS))
# What else becomes a property: the same in all messages of a job, or each time another.
_common = attrgetter("job", "priority", "content_type", "content_encoding", "app_id", "user_id")
_individual = attrgetter("correlation_id", "reply_to")
# Bytes of each. Together they leave half of HEADERS_LIMIT to the publisher's own headers.
_TEXTS = {
    "key": SHORT_LIMIT,
    "reason": SHORT_LIMIT,
    "error": ERROR_LIMIT,
    "error-kind": SHORT_LIMIT,
    "traceback": TRACEBACK_LIMIT,
    "history": HISTORY_LIMIT,
    "queue": SHORT_LIMIT,
    "worker": SHORT_LIMIT,
    "user-id": SHORT_LIMIT,
}

DRAWN = 256  # ids whose random part is drawn together
_VERSION, _VARIANT = bytes(b & 0x0F | 0x70 for b in range(256)), bytes(b & 0x3F | 0x80 for b in range(256))
_START = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-7")
_END = re.compile(r"(.{4})(.{4})(.{12})")
_ends: list[str] = []
os.register_at_fork(after_in_child=_ends.clear)  # or parent and child would make the same ids


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def _frozen(of: type[T]) -> type[T]:
    """A dataclass whose values nobody changes.

    The type checker sees to that: at run time it would cost each message more than all else about making one.
    """
    return dataclass(slots=True, kw_only=True)(of)


@_frozen
class Message:
    """One request to run a job; a value, which nobody changes.

    Args:
        job: the job's name, `emails.welcome` (AMQP `type`; the routing key where that is absent).
        routing_key: the topic key it was first published with.
        body: JSON, or any bytes for a raw job.
        id: the job id, the same over all attempts (AMQP `message_id`); minted where absent.
        priority: 0 to 9, higher first.
        timestamp: when it was published, whole seconds since the epoch; 0 writes none.
        user_id: the RabbitMQ user who published it, if it says so: RabbitMQ has verified that.
        copied_from: of a copy that is not yet published, who published the original, likewise.
        attempt: 1-based number of this run.
        generation: how often it was replayed from a dead letter queue.
        hop: how often it was copied.
        due: when it should start, milliseconds since the epoch; 0 = at once.
        not_before: a foreign publisher's wish to run later, likewise.
        not_after: do not start later than this, likewise; 0 = no limit.
        first_at: when its first attempt began, likewise; 0 = not yet.
        unknown: how often a worker did not know its job.
        died_at: when it became a dead letter, milliseconds since the epoch.
        crashes: how often a child process died that ran it.
        redeliveries: how often it came back without an answer, where the queue itself does not count.
        headers: the publisher's own headers.
        marks: our headers that say what befell it (reason, error, traceback, history, …), as text.
        delay: seconds that the publisher asked for; spelled in the routing key, not in the message.
    """

    job: str
    routing_key: str
    body: bytes = b""
    id: str = field(default_factory=lambda: new_id())  # noqa: PLW0108  (defined below)
    priority: int | None = NORMAL_PRIORITY
    content_type: str | None = JSON
    content_encoding: str | None = None
    timestamp: int = field(default_factory=lambda: int(time.time()))
    correlation_id: str | None = None
    reply_to: str | None = None
    app_id: str | None = None
    user_id: str = ""
    copied_from: str = ""
    attempt: int = 1
    generation: int = 0
    hop: int = 0
    due: int = 0
    not_before: int = 0
    not_after: int = 0
    first_at: int = 0
    unknown: int = 0
    died_at: int = 0
    crashes: int = 0
    redeliveries: int = 0
    headers: Mapping[str, Any] = field(default_factory=dict)
    marks: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0

    def __repr__(self) -> str:  # never the body: arguments may be secret
        return f"<Message {self.job} {self.id} attempt {self.attempt}>"

    @property
    def published_at(self) -> float:
        """Seconds since the epoch: to the millisecond when the id is ours, else AMQP's whole seconds."""
        return _time_in(self.id) or float(self.timestamp)

    @property
    def ready_at(self) -> float:
        """When it should have started, seconds since the epoch; the wait is counted from here."""
        published = _time_in(self.id) or float(self.timestamp)
        return published if not self.due else max(published, self.due / 1000)

    def copy(self, marks: Mapping[str, str] | None = None, **changes: Any) -> Message:
        """The message as we publish it again: one hop further, under its own id, name and first routing key."""
        all_marks = {**self.marks, **(marks or {}), "key": self.routing_key}
        changes = {"hop": self.hop + 1, **changes}
        return replace(self, marks=all_marks, copied_from=self.user_id, user_id="", **changes)

    def alike(self) -> tuple[Any, ...] | None:
        """What it has in common with all whose properties differ from its own in id and timestamp alone.

        None where it has headers, or other properties of which each message has its own.
        """
        if self.headers or self.marks or _numbers(self) != _NO_NUMBERS or _individual(self) != (None, None):
            return None
        return _common(self)

    def properties(self) -> Properties:
        """The AMQP properties; absent ones are left out."""
        properties: Properties = {
            "content_type": self.content_type,
            "content_encoding": self.content_encoding,
            "headers": self._wire_headers(),
            "delivery_mode": 2,
            "priority": self.priority,
            "correlation_id": self.correlation_id,
            "reply_to": self.reply_to,
            "message_id": self.id,
            "timestamp": self.timestamp or None,
            "type": self.job,
            "app_id": self.app_id,
            "user_id": self.user_id or None,
        }
        return {name: value for name, value in properties.items() if value is not None}

    def _wire_headers(self) -> dict[str, Any] | None:
        wire: dict[str, Any] = {}
        if self.headers:
            wire.update(portable(self.headers))
        numbers = _numbers(self)
        if numbers != _NO_NUMBERS:
            wire |= {
                PREFIX + name: number
                for name, number, none in zip(_NUMBERS, numbers, _NO_NUMBERS, strict=True)
                if number not in (none, 0)
            }
        for name, text in self.marks.items():
            wire[PREFIX + name] = cut(text, _TEXTS.get(name, SHORT_LIMIT))
        return wire or None


def decode(properties: Mapping[str, Any], body: bytes, *, routing_key: str, default_id: str = "") -> Message:
    """The message in a delivery, whoever published it; absent or odd properties get their defaults.

    Raises:
        UndecodableMessage: the client library could not read its properties.
    """
    if problems := properties.get(PROBLEMS):
        raise UndecodableMessage("undecodable", problems)
    return salvage(properties, body, routing_key=routing_key, default_id=default_id)


def salvage(properties: Mapping[str, Any], body: bytes, *, routing_key: str, default_id: str = "") -> Message:
    """What can be read of the message, whatever that is; it never fails."""
    headers = properties.get("headers")
    if headers and isinstance(headers, Mapping):
        numbers, marks, foreign = _split_headers(headers)
        key = marks.pop("key", None)
    else:
        numbers, marks, foreign, key = {}, {}, {}, None
    if key is None:
        key = delay.target_of(routing_key) or routing_key
    message = Message(
        job=_short(properties.get("type")) or key,
        routing_key=key,
        body=body,
        id=_short(properties.get("message_id")) or default_id or new_id(),
        priority=_priority(properties.get("priority")),
        content_type=_short(properties.get("content_type")) or None,
        content_encoding=_short(properties.get("content_encoding")) or None,
        timestamp=timestamp_of(properties) or int(time.time()),
        correlation_id=_short(properties.get("correlation_id")) or None,
        reply_to=_short(properties.get("reply_to")) or None,
        app_id=_short(properties.get("app_id")) or None,
        user_id=_short(properties.get("user_id")),
        headers=foreign,
        marks=marks,
    )
    if not numbers:
        return message
    changes: dict[str, Any] = {name.replace("-", "_"): number for name, number in numbers.items()}
    changes["attempt"] = max(1, numbers.get("attempt", 1))
    return replace(message, **changes)


def _split_headers(
    headers: Mapping[str, Any],
) -> tuple[dict[str, int], dict[str, str], dict[str, Any]]:
    numbers: dict[str, int] = {}
    marks: dict[str, str] = {}
    foreign: dict[str, Any] = {}
    for raw_name, value in headers.items():
        name = _text(raw_name)
        ours = name[len(PREFIX) :] if name.startswith(PREFIX) else ""
        if ours in _NUMBERS:
            numbers[ours] = _number(value)
        elif ours in _TEXTS:
            marks[ours] = cut(_text(value), _TEXTS[ours])
        else:
            foreign[name] = value
    return numbers, marks, foreign


def portable(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Headers that may travel on: without the broker's own, of types and in an amount that kill no connection.

    `x-death` and its kin make a broker below 4.0.1 drop a copy as a cycle; CC and BCC would route it twice.
    """
    kept: dict[str, Any] = {}
    room = HEADERS_LIMIT // 2  # the other half is for the error, the traceback and the history
    for name, value in headers.items():
        if name.lower().startswith("x-") or name in ("CC", "BCC"):
            continue
        plain = value if _is_plain(value) else _text(value)
        wire_name = cut(name, NAME_LIMIT)
        size = _size(wire_name) + (_size(plain) if isinstance(plain, str) else 8)
        if size <= room:
            kept[wire_name] = plain
            room -= size
    return kept


def _size(text: str) -> int:
    return len(text.encode(errors="replace")) + 5  # its kind and its length


def _is_plain(value: Any) -> bool:
    return isinstance(value, (str, bool)) or (isinstance(value, int) and -(2**63) <= value < 2**63)


def _short(value: Any) -> str:
    if value is None:
        return ""
    if type(value) is str and len(value) <= SHORT_LIMIT // 4:  # which no encoding makes too long
        return value
    return cut(_text(value), SHORT_LIMIT)


def _text(value: Any) -> str:
    match value:
        case str():
            return value
        case bytes() | bytearray():
            return bytes(value).decode(errors="replace")
        case None:
            return ""
    try:
        return str(value)
    except (RecursionError, ValueError):  # nested too deep, or too many digits
        return ""


def _number(value: Any) -> int:
    """A whole number from 0 to LATEST: large enough for every clock, and one more still fits into 64 bits."""
    match value:
        case bool():
            number = 0
        case int():
            number = value
        case float() if math.isfinite(value):  # as JavaScript and PHP send them
            number = int(value)
        case str() if value.isascii() and value.isdecimal() and len(value) < 19:
            number = int(value)
        case datetime():
            number = int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
        case _:
            number = 0
    return min(max(0, number), LATEST)


def timestamp_of(properties: Mapping[str, Any]) -> int:
    """When they say that the message was published, seconds since the epoch; 0 when they do not."""
    number = _number(properties.get("timestamp"))
    if number >= 2**32:  # beyond the year 2106: a client that sends milliseconds
        number //= 1000
    return number if number < 2**32 else 0


def _priority(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255 else None


def new_id() -> str:
    """A UUIDv7 (RFC 9562, section 5.7): sorts by time, tells when it was made."""
    milliseconds = f"{time.time_ns() // 1_000_000:012x}"
    try:
        end = _ends.pop()
    except IndexError:
        end, *more = _draw_ends()
        _ends.extend(more)
    return f"{milliseconds[:8]}-{milliseconds[8:]}-{end}"


def _draw_ends() -> list[str]:
    """The ends of many ids: random, but for the digits that tell the kind. Each draw is a system call."""
    raw = bytearray(os.urandom(10 * DRAWN))
    raw[::10] = raw[::10].translate(_VERSION)
    raw[2::10] = raw[2::10].translate(_VARIANT)
    return ["-".join(parts) for parts in _END.findall(raw.hex())]


def _time_in(id: str) -> float:
    """Seconds since the epoch, from an id as `new_id` makes them; 0 for another."""
    if len(id) != 36 or id[8:24:5] != "----" or id[19] not in "89abAB":
        return 0.0
    return _time_at_start(id[:15])


@lru_cache(maxsize=1024)
def _time_at_start(start: str) -> float:
    """The same of an id that is one by its form; many that were sent at once begin alike."""
    return int(start[:8] + start[9:13], 16) / 1000 if _START.fullmatch(start) else 0.0
