"""Settle: the only place where a delivery is acknowledged or given back.

    Succeeded      ack
    Retried        publish the next attempt into the delay levels ► confirm ► ack
    DeadLettered   publish a copy with its error to the dead letter exchange ► confirm ► ack
    Released       nack, back to the queue

The copy is always confirmed before the original is acked: a crash in between makes a repeat, never a loss.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from brokerjobs import topology
from brokerjobs.amqp.delivery import Delivery
from brokerjobs.failure import Failure, cut
from brokerjobs.message import HISTORY_LIMIT, Message
from brokerjobs.outcome import DeadLettered, Outcome, Released, Retried, Succeeded
from brokerjobs.process_name import process_name
from brokerjobs.topology import Names
from brokerjobs.transport import AsyncPublisher, Publication

HISTORY_ENTRIES = 20
HISTORY_ERROR_LIMIT = 200  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of a message's history.

    Args:
        at: when, seconds since the epoch.
        attempt: which attempt failed; 0 where the entry tells of a replay.
        error: what it failed with.
        replay: which replay it was; 0 where the entry tells of an attempt.
    """

    at: float
    attempt: int = 0
    error: str = ""
    replay: int = 0


@dataclass(frozen=True, slots=True)
class Settlement:
    """Settles deliveries of one worker.

    Args:
        names: where copies go.
        publisher: publishes them; on another connection than the deliveries', since an alarm blocks it.
        timeout: seconds for a copy to be confirmed.
    """

    names: Names
    publisher: AsyncPublisher
    timeout: float

    async def follow_up(self, message: Message, outcome: Outcome, queue: str) -> None:
        """Publish what follows from the outcome; when this returns, it is confirmed.

        Raises:
            PublishRefused, PublishUnknown: the copy was not confirmed.
        """
        match outcome:
            case Retried():
                copy = next_attempt(message, outcome, queue, self.names)
            case DeadLettered():
                copy = dead_letter(message, outcome, queue, self.names)
            case Succeeded() | Released():
                return
            case _:
                assert_never(outcome)
        await self.publisher.publish(copy, timeout=self.timeout)

    async def settle(self, delivery: Delivery, outcome: Outcome) -> None:
        """Acknowledge the delivery, or give it back; after `follow_up` only.

        Raises:
            ConnectionLost: the delivery's session has ended; the broker delivers it again.
        """
        match outcome:
            case Succeeded() | Retried() | DeadLettered():
                await delivery.ack()
            case Released():
                await delivery.requeue()
            case _:
                assert_never(outcome)


def next_attempt(message: Message, outcome: Retried, queue: str, names: Names) -> Publication:
    """The copy that runs after the delay, in exactly the queue that failed."""
    now = int(time.time() * 1000)
    marks = {"history": _history(message, outcome.failure, now)} if outcome.failure is not None else {}
    exchange, key = topology.route_to_queue(names, queue, outcome.delay)
    if outcome.reason == "redelivered":  # the same run still, by which whoever has it recognises it
        return Publication(
            exchange, key, message.copy(redeliveries=message.redeliveries + 1, hop=message.hop)
        )
    copy = message.copy(
        attempt=message.attempt + outcome.spends,
        unknown=message.unknown + (outcome.reason == "unknown_job"),
        crashes=message.crashes + (outcome.reason == "crashed"),
        redeliveries=0,
        not_before=0,
        due=now + int(outcome.delay * 1000),
        first_at=message.first_at or outcome.began,
        marks=marks,
    )
    return Publication(exchange, key, copy)


def dead_letter(message: Message, outcome: DeadLettered, queue: str, names: Names) -> Publication:
    """The copy for people: with the reason, the error, the traceback and the history of attempts."""
    now = int(time.time() * 1000)
    failure = outcome.failure
    marks = {
        "history": _history(message, failure, now),
        "queue": queue,
        "reason": outcome.reason,
        "error": failure.text,
        "error-kind": failure.kind,
        "traceback": failure.traceback,
        "worker": process_name(),
    }
    crashes = message.crashes + (outcome.reason == "crashed")
    copy = message.copy(
        died_at=now, crashes=crashes, marks={name: text for name, text in marks.items() if text}
    )
    return Publication(names.dead_exchange, queue, copy)


def _history(message: Message, failure: Failure, now: int) -> str:
    return write_history(
        [*history(message), Entry(at=now / 1000, attempt=message.attempt, error=str(failure))]
    )


def history(message: Message) -> list[Entry]:
    """What befell it before, oldest first; what cannot be read, since anybody can write this header, is left out."""
    try:
        entries = json.loads(message.marks.get("history", "[]"))
    except (ValueError, RecursionError):
        return []
    found = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return [
        Entry(
            at=_whole(entry.get("at")) / 1000,
            attempt=_whole(entry.get("attempt")),
            error=error if isinstance(error := entry.get("error"), str) else "",
            replay=_whole(entry.get("replay")),
        )
        for entry in found[-HISTORY_ENTRIES:]
    ]


def write_history(entries: Sequence[Entry]) -> str:
    """The entries as a header; the oldest make room."""
    written = [
        {"replay": entry.replay, "at": round(entry.at * 1000)}
        if entry.replay
        else {
            "attempt": entry.attempt,
            "at": round(entry.at * 1000),
            "error": cut(entry.error, HISTORY_ERROR_LIMIT),
        }
        for entry in entries
    ]
    # When it was replayed last is asked of it too, so that entry stays.
    replayed = max((place for place, entry in enumerate(entries) if entry.replay), default=len(written))
    oldest = max(0, len(written) - HISTORY_ENTRIES)
    for first in range(oldest + (replayed < oldest), len(written)):
        kept = written[replayed : replayed + 1] if replayed < first else []
        text = json.dumps([*kept, *written[first:]], ensure_ascii=False, separators=(",", ":"))
        if len(text.encode()) <= HISTORY_LIMIT:  # control characters take six bytes each
            return text
    return "[]"


def _whole(value: Any) -> int:
    return min(value, 2**53) if isinstance(value, int) and value > 0 else 0
