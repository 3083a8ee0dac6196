"""Looks at a namespace, made up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from brokerjobs.inspection import Counts, Level, Look, Snapshot
from brokerjobs.worker_state import QueueWork, RecentFailure, RunningJob, WorkerState

NOW = 1_800_000_000.0


def counts(queue: str = "emails", ready: int | None = 0, consumers: int = 1, **more: Any) -> Counts:
    return Counts(queue=queue, ready=ready, consumers=consumers, **{"unacked": None, "dead": 0, **more})


def work(received: int = 0, *, unstarted: int = 0, slots: int = 10, **more: Any) -> QueueWork:
    """What a worker did, successfully unless told otherwise."""
    finished = more.pop("finished", {"succeeded": received})
    times = {"due": 0.0, "began": 0.0, **more}
    return QueueWork(slots=slots, unstarted=unstarted, received=received, finished=finished, **times)


def worker(
    name: str = "host:1",
    works: Mapping[str, QueueWork] | None = None,
    *,
    since: float = NOW - 3600,
    **more: Any,
) -> WorkerState:
    works = {"emails": work()} if works is None else works
    told: dict[str, Any] = {"queues": tuple(works), "paused": {}, "running": (), **more}
    return WorkerState(worker=name, since=since, work=works, **told)


def job(number: int, *, began: float = NOW - 5, queue: str = "emails", attempt: int = 1) -> RunningJob:
    return RunningJob(
        id=f"01a20134-a509-7024-{number:04}-c0ffee", job=f"{queue}.welcome", queue=queue, attempt=attempt,
        began=began,
    )  # fmt: skip


def failure(number: int, *, error: str = "ConnectionError: gateway is away", **more: Any) -> RecentFailure:
    told: dict[str, Any] = {
        "queue": "emails",
        "job": "emails.welcome",
        "attempt": 2,
        "outcome": "retried",
        **more,
    }
    return RecentFailure(at=NOW - number, id=f"01a20134-a509-7024-{number:04}", error=error, **told)


def look(
    at: float = NOW,
    queues: Iterable[Counts] = (),
    workers: Iterable[WorkerState] = (),
    *,
    heard: Mapping[str, float] | None = None,
    levels: tuple[Level, ...] = (),
    missing: str = "",
) -> Look:
    states = tuple(workers)
    snapshot = Snapshot(
        at=at, queues=tuple(queues) or (counts(),), levels=levels, unrouted=0, missing=missing
    )
    answered = {state.worker: at for state in states}
    return Look(snapshot=snapshot, workers=states, heard={**answered, **(heard or {})})
