"""How a dead letter looks: a row of a table, a page of text, JSON. All of its text is a stranger's."""

from __future__ import annotations

import base64
import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from brokerjobs import payload
from brokerjobs.cli.output import print_table, printable
from brokerjobs.dead_letters import DeadLetter, Entry, Group
from brokerjobs.durations import text
from brokerjobs.errors import UndecodableMessage
from brokerjobs.failure import cut
from brokerjobs.message import Message

SUMMARY_LIMIT = 120  # bytes in a row
SHORT_ID = 18  # characters: of our ids the millisecond and 12 random bits
BYTES_SHOWN = 4096  # of a body that is not JSON


def print_letters(found: Sequence[DeadLetter], *, empty: str) -> None:
    """A table of dead letters; on a terminal with ids as short as can be told apart."""
    length = _short({letter.id for letter in found}) if sys.stdout.isatty() else None
    rows = [
        (
            letter.id[:length],
            letter.message.job,
            letter.reason or "unknown",
            cut(letter.summary, SUMMARY_LIMIT) + (f" ({letter.copies} copies)" if letter.copies > 1 else ""),
            letter.attempts,
            age(letter.died_at),
        )
        for letter in found
    ]
    print_table(("id", "job", "reason", "error", "attempts", "age"), rows, empty=empty, elastic="error")


def print_groups(groups: Sequence[Group], *, empty: str) -> None:
    """A table of groups, each with a command to look at one of them."""
    length = _short({group.example for group in groups}) if sys.stdout.isatty() else None
    rows = [
        (
            group.count,
            group.reason or "unknown",
            cut(group.error, SUMMARY_LIMIT),
            ", ".join(group.jobs),
            age(group.newest),
            group.example[:length],
        )
        for group in groups
    ]
    print_table(("count", "reason", "error", "jobs", "last", "example"), rows, empty=empty, elastic="error")


def _short(ids: set[str]) -> int:
    """How many characters tell these ids apart."""
    longest = max(map(len, ids), default=0)
    return next(
        (length for length in range(SHORT_ID, longest) if len({id[:length] for id in ids}) == len(ids)),
        longest,
    )


def age(at: float | None) -> str:
    return "" if at is None else text(max(0, round(time.time() - at)))


def as_json(letter: DeadLetter, *, whole: bool) -> dict[str, Any]:
    """A dead letter for programs.

    Args:
        letter: it.
        whole: with the arguments, the headers and the traceback.
    """
    message = letter.message
    summary = {
        "id": letter.id,
        "job": message.job,
        "queue": letter.queue,
        "reason": letter.reason,
        "error_kind": letter.error_kind,
        "error": letter.error,
        "attempts": letter.attempts,
        "generation": message.generation,
        "copies": letter.copies,
        "published_at": _iso(letter.published_at),
        "died_at": _iso(letter.died_at),
    }
    if not whole:
        return summary
    return summary | {
        "routing_key": message.routing_key,
        "priority": message.priority,
        "content_type": message.content_type,
        "correlation_id": message.correlation_id,
        "worker": letter.worker,
        "history": [_entry_as_json(entry) for entry in letter.history],
        "traceback": letter.traceback,
        "headers": dict(message.headers),
        **_arguments_as_json(message),
        "replay": replay_command(letter),
    }


def group_as_json(group: Group) -> dict[str, Any]:
    return {
        "count": group.count,
        "reason": group.reason,
        "error": group.error,
        "jobs": list(group.jobs),
        "oldest": _iso(group.oldest),
        "newest": _iso(group.newest),
        "example": group.example,
    }


def page(letter: DeadLetter, namespace: str = "") -> Iterator[str]:
    """Everything about a dead letter, in lines that are safe to print."""
    message = letter.message
    for name, value in (
        ("job", message.job),
        ("id", letter.id),
        ("message id", message.id if message.id != letter.id else ""),
        ("queue", letter.queue),
        ("routing key", message.routing_key),
        ("published", _when(letter.published_at)),
        ("died", _when(letter.died_at)),
        ("reason", letter.reason or "unknown: neither brokerjobs nor RabbitMQ left one"),
        ("error", _error(letter)),
        ("attempts", str(letter.attempts)),
        ("replays", str(message.generation) if message.generation else ""),
        ("copies", str(letter.copies) if letter.copies > 1 else ""),
        ("priority", "" if message.priority is None else str(message.priority)),
        ("correlation", message.correlation_id or ""),
        ("worker", letter.worker),
    ):
        if value:
            first, *rest = printable(value).splitlines() or [""]
            yield f"{name:<12} {first}"
            yield from (f"{'':<12} {line}" for line in rest)
    yield from _section("history", _history(letter.history))
    yield from _section(*_arguments(message))
    yield from _section("headers", [f"{name}: {value}" for name, value in message.headers.items()])
    yield from _section("traceback", letter.traceback.splitlines())
    yield from _section("replay it", [replay_command(letter, namespace)])


def replay_command(letter: DeadLetter, namespace: str = "") -> str:
    words = ["brokerjobs", "dead", "replay", letter.queue]
    words += ["--namespace", namespace] if namespace else []
    words += ["--", letter.id] if letter.id.startswith("-") else [letter.id]
    return shlex.join(words)


def _section(title: str, lines: list[str]) -> Iterator[str]:
    if lines:
        yield ""
        yield title
        yield from (f"  {printable(part)}" for line in lines for part in line.splitlines() or [""])


def _error(letter: DeadLetter) -> str:
    return ": ".join(filter(None, (letter.error_kind, letter.error)))


def _history(entries: tuple[Entry, ...]) -> list[str]:
    lines = []
    before: float | None = None
    for entry in entries:
        wait = "" if before is None else f"+{text(max(0.0, entry.at - before))}"
        first_line = entry.error.partition("\n")[0]
        what = f"replay {entry.replay}" if entry.replay else f"attempt {entry.attempt}  {first_line}"
        lines.append(f"{_clock(entry.at)}  {wait:>8}  {what}")
        before = entry.at
    return lines


def _arguments(message: Message) -> tuple[str, list[str]]:
    try:
        positional, named = payload.decode(message.body, message.content_type, message.content_encoding)
    except UndecodableMessage as error:
        return f"body, {len(message.body)} bytes ({error})", _body(message.body)
    arguments = positional or named
    return "arguments", json.dumps(arguments, indent=2, ensure_ascii=False).splitlines() if arguments else [
        "none"
    ]


def _body(body: bytes) -> list[str]:
    shown = body[:BYTES_SHOWN]
    try:
        lines = shown.decode().splitlines()
    except UnicodeDecodeError:
        lines = [shown[start : start + 32].hex(" ") for start in range(0, len(shown), 32)]
    return [*lines, f"… {len(body) - len(shown)} more bytes"] if len(body) > len(shown) else lines


def _arguments_as_json(message: Message) -> dict[str, Any]:
    try:
        positional, named = payload.decode(message.body, message.content_type, message.content_encoding)
    except UndecodableMessage:
        return {"body_base64": base64.b64encode(message.body).decode()}
    return {"arguments": positional or named}


def _entry_as_json(entry: Entry) -> dict[str, Any]:
    at = _iso(entry.at)
    return {"replay": entry.replay, "at": at} if entry.replay else {
        "attempt": entry.attempt, "at": at, "error": entry.error
    }  # fmt: skip


def _when(at: float | None) -> str:
    return "" if at is None else f"{_local(at):%Y-%m-%d %H:%M:%S}, {age(at)} ago"


def _clock(at: float) -> str:
    return f"{_local(at):%m-%d %H:%M:%S}"


def _iso(at: float | None) -> str | None:
    return None if at is None else _local(at).isoformat(timespec="milliseconds")


def _local(at: float) -> datetime:
    try:
        return datetime.fromtimestamp(at).astimezone()
    except (ValueError, OverflowError, OSError):  # a forged time beyond the calendar
        return datetime.fromtimestamp(0).astimezone()
