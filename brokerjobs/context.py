"""What a running job can know and decide about itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from brokerjobs import logs
from brokerjobs.failure import Failure
from brokerjobs.message import Message
from brokerjobs.outcome import DeadLettered, Outcome, Released, Succeeded


class Cancellation:
    """Whether somebody wants the end of a run; also read by the job's own thread.

    Args:
        is_meant: whether a cancellation of the task that runs it comes from outside; else it comes from the job itself,
            or from what it has started.
    """

    __slots__ = ("asked", "is_meant")

    def __init__(self, *, is_meant: bool = False) -> None:
        self.asked = False  # by an operator
        self.is_meant = is_meant


@dataclass(slots=True)
class Context:
    """The run of one job: `current_job()` gives it inside the job.

    Most jobs never decide by hand: returning acknowledges, raising retries. `ack`, `nack` and `reject` decide
    at once, before the function ends; the first decision holds, and what the function does afterwards
    changes nothing about the message.

    Args:
        message: the request.
        queue: the queue it came from.
        arguments: what the job was called with, by name.
        redelivered: the broker may have delivered it before.
        deadline: `time.monotonic()` at which the attempt times out.
        max_attempts: how often it may run; None when a tenacity strategy decides.
    """

    message: Message
    queue: str
    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)
    redelivered: bool = False
    deadline: float = float("inf")
    max_attempts: int | None = None
    decision: Outcome | None = None
    _decide: Callable[[Outcome], None] = field(default=lambda _: None, repr=False)
    _cancellation: Cancellation = field(default_factory=Cancellation, repr=False)

    @property
    def id(self) -> str:
        return self.message.id

    @property
    def job(self) -> str:
        return self.message.job

    @property
    def attempt(self) -> int:
        return self.message.attempt

    @property
    def headers(self) -> Mapping[str, Any]:
        return MappingProxyType(dict(self.message.headers))

    @property
    def remaining(self) -> float:
        """Seconds until the attempt times out."""
        return self.deadline - time.monotonic()

    @property
    def is_cancelled(self) -> bool:
        """Whether `brokerjobs cancel` asked for the end of this job: a `def` job looks here, others are stopped."""
        return self._cancellation.asked

    def ack(self) -> None:
        """Acknowledge now: whatever happens next, the job is not run again."""
        self.settle(Succeeded())

    def nack(self) -> None:
        """Give the message back to its queue now, unchanged, to be delivered again at once."""
        self.settle(Released("nack by the job"))

    def reject(self, reason: str = "rejected by the job") -> None:
        """Put the message into the dead letter queue now."""
        self.settle(DeadLettered(reason="rejected", failure=Failure(text=reason)))

    def settle(self, outcome: Outcome) -> None:
        """Decide, unless that has been done."""
        if self.decision is None:
            self.decision = outcome
            self._decide(outcome)


current: ContextVar[Context] = ContextVar("brokerjobs_current")


def _fields() -> dict[str, Any]:
    context = current.get(None)
    if context is None:
        return {}
    return {"job": context.job, "id": context.id, "queue": context.queue, "attempt": context.attempt}


logs.tell(_fields)


def current_job() -> Context:
    """The context of the job that is running here.

    Raises:
        LookupError: outside a job.
    """
    try:
        return current.get()
    except LookupError:
        raise LookupError("no job is running here: current_job() works inside a job only") from None
