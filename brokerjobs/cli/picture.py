"""What `brokerjobs top` shows of a look, and how it says it in plain lines and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from brokerjobs.cli.output import lapse, printable
from brokerjobs.durations import text
from brokerjobs.inspection import Flow, Look, Snapshot, Standing
from brokerjobs.worker_state import RecentFailure

SHORTEST = 0.5  # seconds between two looks
REMEMBERED = 100  # failures: workers forget theirs when they end


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One look, put in order for people.

    Args:
        address: of RabbitMQ.
        look: what was seen.
        standings: the queues, what needs a person first.
        failures: the newest first.
        notes: what could not be seen, and why.
    """

    address: str
    look: Look
    standings: Sequence[Standing]
    failures: Sequence[RecentFailure]
    notes: Sequence[str]


class Failures:
    """Those of all workers, also of workers that have ended meanwhile."""

    def __init__(self) -> None:
        self._known: list[RecentFailure] = []

    def take(self, look: Look, queues: Sequence[str]) -> list[RecentFailure]:
        """All that are known as of this look, the newest first."""
        told = {failure for state in look.workers for failure in state.failures if failure.queue in queues}
        self._known = sorted({*self._known, *told}, key=lambda failure: -failure.at)[:REMEMBERED]
        return self._known


def flow_as_json(flow: Flow) -> dict[str, Any]:
    """The words of a flow; what is infinite is null, since JSON has no word for it."""
    drain = flow.drain
    return {
        "oldest_seconds": _rounded(flow.oldest),
        "arrivals_per_second": _rounded(flow.arrivals),
        "done_per_second": _rounded(flow.done),
        "failed_per_second": _rounded(flow.failed),
        "seconds_to_drain": _rounded(drain) if drain is not None and math.isfinite(drain) else None,
    }


def waiting_as_json(seen: Snapshot) -> dict[str, Any]:
    """What waits in the delay levels, of all queues together: RabbitMQ tells nobody for which."""
    levels = [{"delay_seconds": level.delay, "waiting": level.waiting} for level in seen.levels]
    return {"total": seen.waiting, "levels": levels}


def as_json(picture: Picture) -> dict[str, Any]:
    """One object for one look."""
    look = picture.look
    return {
        "at": moment(look.at),
        "queues": [
            {
                **asdict(standing.counts),
                "state": standing.word,
                "running": standing.flow.running,
                "slots": standing.flow.slots,
                **flow_as_json(standing.flow),
            }
            for standing in picture.standings
        ],
        "waiting": waiting_as_json(look.snapshot),
        "unrouted": look.snapshot.unrouted,
        "workers": [
            {
                "worker": state.worker,
                "queues": state.queues,
                "since": moment(state.since),
                "silent_seconds": _rounded(look.at - look.heard[state.worker])
                if look.is_silent(state.worker)
                else 0.0,
                "slots": sum(work.slots for work in state.work.values()) if state.work else None,
                "paused": state.paused,
                "running": [{**asdict(job), "began": moment(job.began)} for job in state.running],
            }
            for state in look.workers
        ],
        "failures": [{**asdict(failure), "at": moment(failure.at)} for failure in picture.failures],
        "missing": list(picture.notes),
    }


def moment(at: float) -> str:
    """A time as programs read it."""
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):  # a stranger's
        return ""


def lines(picture: Picture, before: Picture | None) -> Iterator[str]:
    """A block of lines for one look: what the line is about, then name=value; notes and failures once.

    Args:
        picture: of this look.
        before: of the one before it.
    """
    look = picture.look
    totals: Mapping[str, object] = {
        "ready": sum(standing.counts.ready or 0 for standing in picture.standings),
        "waiting": look.snapshot.waiting,
        "dead": sum(standing.counts.dead for standing in picture.standings),
        "unrouted": look.snapshot.unrouted,
        "workers": len(look.workers),
    }
    yield f"look {moment(look.at)} {picture.address} {_pairs(totals)}"
    for level in look.snapshot.levels:
        yield f"level {text(level.delay)} waiting={level.waiting}"
    for standing in picture.standings:
        yield f"queue {standing.counts.queue} {_pairs(_of_queue(standing))}"
    for state in look.workers:
        silent = lapse(look.at - look.heard[state.worker]) if look.is_silent(state.worker) else None
        paused = ",".join(f"{queue}:{who}" for queue, whys in state.paused.items() for who in whys)
        told = {
            "queues": ",".join(state.queues),
            "running": len(state.running),
            "silent": silent,
            "paused": paused or None,
        }
        yield f"worker {plain(state.worker)} {_pairs(told)}"
        for job in state.running:
            told = {
                "queue": job.queue,
                "id": job.id,
                "attempt": job.attempt,
                "for": lapse(look.at - job.began),
            }
            yield f"job {plain(job.job)} {_pairs({**told, 'worker': state.worker})}"
    known = set(before.failures) if before else set()
    for failure in reversed(picture.failures):
        if failure not in known:
            told = {"id": failure.id, "attempt": failure.attempt, "outcome": failure.outcome}
            yield f"failure {moment(failure.at)} {plain(failure.job)} {_pairs(told)} error={plain(failure.error)}"
    for note in picture.notes:
        if before is None or note not in before.notes:
            yield f"missing {plain(note)}"


def _of_queue(standing: Standing) -> dict[str, object]:
    counts, flow = standing.counts, standing.flow
    running = flow.running if flow.slots is None else f"{flow.running}/{flow.slots}"
    return {
        "ready": counts.ready,
        "running": running,
        "unacked": counts.unacked,
        "consumers": counts.consumers,
        "dead": counts.dead,
        "oldest": None if flow.oldest is None else lapse(flow.oldest),
        "arrivals": None if flow.arrivals is None else f"{flow.arrivals:.1f}/s",
        "done": None if flow.done is None else f"{flow.done:.1f}/s",
        "failed": None if flow.failed is None else f"{flow.failed:.1f}/s",
        "drain": None if flow.drain is None else lapse(flow.drain) if math.isfinite(flow.drain) else "never",
        "state": standing.word.replace(" ", "-") or "ok",
    }


def _pairs(told: Mapping[str, object]) -> str:
    return " ".join(f"{name}={plain(str(value))}" for name, value in told.items() if value is not None)


def plain(text: str) -> str:
    """A stranger's text on one line, without control codes."""
    return printable(text).replace("\t", " ").replace("\n", " ")


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
