"""What became of each job, by what the worker logged. Nothing here does I/O, and time is passed in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

# What a step that succeeded has sent before: (step, job). The ids are those that `consumers.orders.job_id` makes.
FOLLOWERS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "orders.validate": (("charge", "payments.charge"),),
    "payments.charge": (("confirm", "orders.confirm"),),
    "orders.confirm": (("receipt", "emails.receipt"), ("ship", "shipping.ship")),
}

State = Literal["queued", "waiting", "done", "dead"]


@dataclass(slots=True)
class Entry:
    """One job, whatever the number of its attempts."""

    job: str
    state: State = "queued"
    due: float = 0.0  # seconds since the epoch, while it waits
    reason: str = ""  # why it is dead

    @property
    def queue(self) -> str:
        return self.job.partition(".")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """How an attempt ended, or trouble of the worker itself."""

    at: float  # seconds since the epoch
    kind: Literal["done", "retried", "dead", "released", "trouble"]
    job: str = ""
    error: str = ""
    id: str = ""
    attempt: int = 0
    reason: str = ""
    delay: float = 0.0  # seconds


@dataclass(slots=True)
class Ledger:
    """All jobs that are known to have been published, and how they ended."""

    entries: dict[str, Entry] = field(default_factory=dict)
    waits: list[float] = field(default_factory=list)  # seconds; one for each retry
    outcomes: Counter[str] = field(default_factory=Counter)  # attempts, by the words that metrics use
    retries: Counter[tuple[str, str]] = field(default_factory=Counter)  # by queue and reason

    def publish(self, id: str, job: str, due: float = 0.0) -> None:
        """A publisher has the broker's confirm for it; its outcome may be known already."""
        entry = self.entries.setdefault(id, Entry(job))
        if due and entry.state == "queued":
            entry.state, entry.due = "waiting", due

    def read(self, line: Mapping[str, Any], at: float) -> Event | None:
        """Take in one line of the worker's log; gives what it tells of a job, or of trouble.

        Args:
            line: its fields.
            at: when it was written, seconds since the epoch.
        """
        match line.get("event"):
            case "job succeeded":
                return self._done(line, at)
            case "job retried":
                return self._retried(line, at)
            case "job dead":
                return self._dead(line, at)
            case "job released":
                self.outcomes["released"] += 1
                return _event("released", line, at)
            case trouble if line.get("level") == "error":
                return Event(at=at, kind="trouble", error=f"{trouble}: {line.get('error', '')}")
        return None

    def waiting(self, queue: str, now: float) -> int:
        """How many jobs of a queue wait for their time, or for their next attempt."""
        return sum(
            entry.queue == queue and entry.state == "waiting" and entry.due > now
            for entry in self.entries.values()
        )

    def ids(self, queue: str, state: State) -> set[str]:
        return {id for id, entry in self.entries.items() if entry.queue == queue and entry.state == state}

    @property
    def done(self) -> int:
        return sum(entry.state == "done" for entry in self.entries.values())

    @property
    def dead(self) -> Counter[str]:
        """Dead jobs by reason."""
        return Counter(entry.reason for entry in self.entries.values() if entry.state == "dead")

    def dead_by_queue(self) -> dict[str, int]:
        return dict(Counter(entry.queue for entry in self.entries.values() if entry.state == "dead"))

    @property
    def retried(self) -> int:
        return len(self.waits)

    @property
    def unfinished(self) -> list[str]:
        return [id for id, entry in self.entries.items() if entry.state in ("queued", "waiting")]

    def _done(self, line: Mapping[str, Any], at: float) -> Event:
        self._entry(line).state = "done"
        self.outcomes["succeeded"] += 1
        self._expect_followers(str(line["job"]), str(line["id"]))
        return _event("done", line, at)

    def _retried(self, line: Mapping[str, Any], at: float) -> Event:
        entry, delay, reason = self._entry(line), float(line["delay"]), str(line["reason"])
        entry.state, entry.due = "waiting", at + delay
        self.waits.append(delay)
        self.retries[entry.queue, reason] += 1
        self.outcomes["retried"] += 1
        return _event("retried", line, at, delay=delay)

    def _dead(self, line: Mapping[str, Any], at: float) -> Event:
        entry = self._entry(line)
        entry.state, entry.reason = "dead", str(line["reason"])
        self.outcomes["dead"] += 1
        return _event("dead", line, at)

    def _entry(self, line: Mapping[str, Any]) -> Entry:
        return self.entries.setdefault(str(line["id"]), Entry(str(line["job"])))

    def _expect_followers(self, job: str, id: str) -> None:
        order, dot, _ = id.rpartition(".")
        for step, follower in FOLLOWERS.get(job, ()) if dot else ():
            self.publish(f"{order}.{step}", follower)


def _event(
    kind: Literal["done", "retried", "dead", "released"],
    line: Mapping[str, Any],
    at: float,
    delay: float = 0.0,
) -> Event:
    return Event(
        at=at,
        kind=kind,
        job=str(line["job"]),
        id=str(line["id"]),
        attempt=int(line["attempt"]),
        error=str(line.get("error", "")),
        reason=str(line.get("reason", "")),
        delay=delay,
    )
