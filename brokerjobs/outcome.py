"""How one attempt ended. `amqp.settlement` turns each into frames; metrics use the same words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from brokerjobs.failure import Failure


@dataclass(frozen=True, slots=True)
class Succeeded:
    """Acknowledge it."""

    result: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried:
    """Run it again after a delay.

    Args:
        delay: seconds.
        reason: failed, crashed, retry_later, unknown_job, not_before or redelivered.
        failure: what went wrong, if anything did.
        spends: whether this run counts as an attempt.
        began: when the run began, milliseconds since the epoch; 0 when it did not run.
    """

    delay: float
    reason: str
    failure: Failure | None = None
    spends: bool = True
    began: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLettered:
    """Put it into the dead letter queue, for people.

    Args:
        reason: exhausted, failed, crashed, rejected, cancelled, expired, unknown_job, arguments, json, encoding,
            content_type, too_large, unverified.
        failure: what went wrong.
    """

    reason: str
    failure: Failure


@dataclass(frozen=True, slots=True)
class Released:
    """Give it back to its queue, unrun or interrupted."""

    reason: str


Outcome = Succeeded | Retried | DeadLettered | Released

WORDS = ("succeeded", "retried", "dead", "released")


def word(outcome: Outcome) -> str:
    """The outcome in one word, for metrics and logs."""
    match outcome:
        case Succeeded():
            return "succeeded"
        case Retried():
            return "retried"
        case DeadLettered():
            return "dead"
        case Released():
            return "released"
