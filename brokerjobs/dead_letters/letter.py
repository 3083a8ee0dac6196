"""A dead letter as a value: read from whatever lies in a dead letter queue, and published again from it.

Three kinds of authors write there: a worker (with reason, error, traceback and history), RabbitMQ itself (at the
delivery limit; only its x-death header tells), and anybody with the management page at hand (nothing is set).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from brokerjobs import topology
from brokerjobs.amqp.settlement import Entry, history, write_history
from brokerjobs.message import PROBLEMS, Message, new_id, salvage
from brokerjobs.topology import Names
from brokerjobs.transport import Publication

_BROKER_SAYS = {
    "delivery_limit": "delivered too often without an answer; RabbitMQ gave up (delivery limit)",
    "expired": "its time to live ran out before a worker took it",
    "maxlen": "the queue was full",
    "rejected": "a consumer rejected it",
}
# What is kept of the marks when it goes back to work: they tell where it is from, not how it failed.
_KEPT_MARKS = ("key", "user-id")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message in a dead letter queue, and why it is there; what is not known is empty.

    Args:
        id: the job id; where the message has none that a person could type, one made of its content.
        message: what would run again.
        queue: where it died, as users say it.
        reason: one word: exhausted, failed, rejected, expired, unknown_job, arguments, json, delivery_limit, …
        error: the text of the error.
        error_kind: its class.
        traceback: as Python prints it.
        attempts: how many attempts were made or begun.
        history: what happened before, oldest first.
        published_at: seconds since the epoch.
        died_at: likewise.
        worker: host and process that gave up.
        identity: equal for copies of one dead letter; None where that cannot be told.
        copies: how many such copies were seen.
    """

    id: str
    message: Message
    queue: str
    reason: str = ""
    error: str = ""
    error_kind: str = ""
    traceback: str = ""
    attempts: int = 1
    history: tuple[Entry, ...] = ()
    published_at: float | None = None
    died_at: float | None = None
    worker: str = ""
    identity: tuple[str, str, bytes] | None = None
    copies: int = 1

    @property
    def summary(self) -> str:
        """The error in one line."""
        line = next((line.strip() for line in self.error.splitlines() if line.strip()), "")
        return f"{self.error_kind}: {line}" if self.error_kind and line else self.error_kind or line


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which dead letters; what is left out does not matter.

    Args:
        ids: exactly one of these.
        job: a name with wildcards, `emails.*`.
        error: a part of the error, its class included; upper and lower case are the same.
        reason: exactly this one.
        since: died then or later, seconds since the epoch.
        until: died then or earlier, likewise.
    """

    ids: tuple[str, ...] = ()
    job: str = ""
    error: str = ""
    reason: str = ""
    since: float | None = None
    until: float | None = None

    def matches(self, letter: DeadLetter) -> bool:
        return (
            (not self.ids or letter.id in self.ids)
            and (not self.job or fnmatchcase(letter.message.job, self.job))
            and (not self.reason or letter.reason == self.reason)
            and self.error.casefold() in f"{letter.error_kind}: {letter.error}".casefold()
            and (self.since is None or (letter.died_at is not None and letter.died_at >= self.since))
            and (self.until is None or (letter.died_at is not None and letter.died_at <= self.until))
        )


def read(properties: Mapping[str, Any], body: bytes, *, routing_key: str, queue: str) -> DeadLetter:
    """The dead letter in a delivery from the dead letter queue of `queue`; it never fails.

    Args:
        properties: of AMQP.
        body: as delivered.
        routing_key: the delivery's; the broker's own account of the message's death knows a better one.
        queue: as users say it.
    """
    headers = properties.get("headers")
    death = _death(headers if isinstance(headers, Mapping) else {})
    key = _first_key(death) or routing_key
    content = f"no-id-{_digest(key.encode(errors='replace'), body)[:12]}"
    message = salvage(properties, body, routing_key=key, default_id=content)
    has_id = message.id != content
    marks, reason = message.marks, _text(death.get("reason"))
    problems = properties.get(PROBLEMS, "")
    return DeadLetter(
        id=message.id if message.id.isprintable() and " " not in message.id else content,
        message=message,
        queue=queue,
        reason=marks.get("reason") or reason or ("undecodable" if problems else ""),
        error=marks.get("error") or ("" if "reason" in marks else _BROKER_SAYS.get(reason, "")) or problems,
        error_kind=marks.get("error-kind", ""),
        traceback=marks.get("traceback", ""),
        attempts=message.attempt,
        history=tuple(history(message)),
        published_at=_published_at(message, properties),
        died_at=message.died_at / 1000 if message.died_at else _time(death.get("time")),
        worker=marks.get("worker", ""),
        identity=(message.id, message.job, hashlib.sha256(body).digest()) if has_id else None,
    )


def replay_of(letter: DeadLetter, names: Names, *, now: float, delay: float = 0.0) -> Publication:
    """The message as it goes back to exactly the queue in which it died: a first attempt of the next generation.

    It keeps its id and its history, to which the replay is added; its deadline and its error are dropped.

    Args:
        letter: what to replay.
        names: where it goes.
        now: seconds since the epoch.
        delay: seconds until it shall run.
    """
    generation = letter.message.generation + 1
    marks = {name: text for name, text in letter.message.marks.items() if name in _KEPT_MARKS}
    marks["history"] = write_history([*letter.history, Entry(at=now, replay=generation)])
    original = replace(letter.message, marks=marks, id=letter.message.id if letter.identity else new_id())
    copy = original.copy(
        attempt=1,
        generation=generation,
        due=round((now + delay) * 1000),
        not_before=0,
        not_after=0,
        first_at=0,
        unknown=0,
        died_at=0,
        crashes=min(1, original.crashes),  # isolated from the start, and with most of its lives back
        redeliveries=0,
    )
    exchange, key = topology.route_to_queue(names, letter.queue, delay)
    return Publication(exchange, key, copy)


def _death(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    """RabbitMQ's account of the latest death; it puts that first."""
    deaths = headers.get("x-death")
    latest = deaths[0] if isinstance(deaths, list) and deaths else None
    return latest if isinstance(latest, Mapping) else {}


def _first_key(death: Mapping[str, Any]) -> str:
    keys = death.get("routing-keys")
    return _text(keys[0]) if isinstance(keys, list) and keys else ""


def _published_at(message: Message, properties: Mapping[str, Any]) -> float | None:
    """Unless neither a timestamp nor the id tells: reading puts the present time there."""
    is_told = properties.get("timestamp") is not None or message.published_at != message.timestamp
    return message.published_at if is_told else None


def _time(value: Any) -> float | None:
    try:
        return value.timestamp() if isinstance(value, datetime) else None
    except (ValueError, OverflowError, OSError):  # before the year 1970 some systems refuse
        return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()
