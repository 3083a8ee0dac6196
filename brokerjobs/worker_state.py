"""What a worker tells of itself, as it is written and as it is read.

Workers and operators may be of different versions. What a newer worker adds stands in fields of its own, which an older
operator passes over; what an older worker does not tell is empty here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

OPERATOR = "operator"  # who pauses a queue by `brokerjobs pause`
GIVEN_BACK = "released"  # the outcome after which a message is in its queue again
FAILURES = 20  # that are remembered of a queue, and told of a worker
ERROR_LIMIT = 200  # bytes of an error that are told


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningJob:
    """A job that a worker runs now.

    Args:
        began: seconds since the epoch, by the worker's clock.
    """

    id: str
    job: str
    queue: str
    attempt: int
    began: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentFailure:
    """An attempt that failed.

    Args:
        at: when it ended, seconds since the epoch, by the worker's clock.
        outcome: `retried` or `dead`.
        error: the beginning of what went wrong, or the reason.
    """

    at: float
    queue: str
    job: str
    id: str
    attempt: int
    outcome: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueWork:
    """What a worker did with one queue since it started.

    Args:
        slots: how many of its jobs may run at once.
        unstarted: deliveries that it holds and has not started.
        received: deliveries that it has started or recognised.
        finished: attempts that ended, by outcome.
        due: when the job started last was due, seconds since the epoch; 0 before the first.
        began: when it was started, likewise, by the worker's clock.
    """

    slots: int
    unstarted: int
    received: int
    finished: Mapping[str, int]
    due: float
    began: float

    @property
    def done(self) -> int:
        """Attempts that have left the queue: what was given back is in it again."""
        return sum(count for outcome, count in self.finished.items() if outcome != GIVEN_BACK)

    @property
    def failed(self) -> int:
        """Attempts that must be repeated, or were the last."""
        return self.done - self.finished.get("succeeded", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerState:
    """What a worker tells of itself.

    Args:
        worker: its host and process id.
        queues: that it consumes.
        since: when it started, seconds since the epoch.
        paused: of each paused queue who paused it and why.
        running: its jobs, the oldest first.
        work: what it did, by queue; empty where an older one does not tell.
        failures: its last ones, the oldest first; likewise.
    """

    worker: str
    queues: tuple[str, ...]
    since: float
    paused: Mapping[str, Mapping[str, str]]
    running: tuple[RunningJob, ...]
    work: Mapping[str, QueueWork] = field(default_factory=dict)
    failures: tuple[RecentFailure, ...] = ()


def read(body: Mapping[str, Any]) -> WorkerState | None:
    """The state that a worker has written; None where a stranger did, since anybody who may publish there can."""
    try:
        return WorkerState(
            worker=str(body["worker"]),
            queues=tuple(map(str, body["queues"])),
            since=float(body["since"]),
            paused={str(queue): dict(whys) for queue, whys in body["paused"].items()},
            running=tuple(sorted(map(_running, body["running"]), key=lambda job: job.began)),
            work={str(queue): _work(told) for queue, told in body.get("work", {}).items()},
            failures=tuple(sorted(_failures(body.get("failures", ())), key=lambda failure: failure.at)),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None


def _running(job: Mapping[str, Any]) -> RunningJob:
    return RunningJob(
        id=str(job["id"]),
        job=str(job["job"]),
        queue=str(job["queue"]),
        attempt=int(job["attempt"]),
        began=float(job["began"]),
    )


def _work(told: Mapping[str, Any]) -> QueueWork:
    return QueueWork(
        slots=int(told["slots"]),
        unstarted=int(told["unstarted"]),
        received=int(told["received"]),
        finished={str(outcome): int(count) for outcome, count in told["finished"].items()},
        due=float(told["due"]),
        began=float(told["began"]),
    )


def _failures(told: Any) -> Iterator[RecentFailure]:
    for failure in told:
        yield RecentFailure(
            at=float(failure["at"]),
            queue=str(failure["queue"]),
            job=str(failure["job"]),
            id=str(failure["id"]),
            attempt=int(failure["attempt"]),
            outcome=str(failure["outcome"]),
            error=str(failure["error"]),
        )
