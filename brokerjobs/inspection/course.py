"""How queues move, from looks at them one after another. Pure: each look brings its time along.

Workers tell what they did since they started, and RabbitMQ what is ready; the difference of two looks is what happened
between them. Nobody can ask RabbitMQ how old a message is. But a queue gives the oldest first, so what is still ready
came after the one that was started last; and after the last look that found the queue empty.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from brokerjobs.inspection.snapshot import Counts, Snapshot
from brokerjobs.worker_state import QueueWork, WorkerState

WINDOW = 10.0  # seconds that rates are taken over: the longer, the steadier and the later


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was seen of a namespace at one time.

    Args:
        snapshot: its queues.
        workers: that have answered, and those that have not, but consume all the same, with what they told before.
        heard: when each of them has answered last, seconds since the epoch.
        missing: why workers could not be asked; empty when they were.
    """

    snapshot: Snapshot
    workers: tuple[WorkerState, ...] = ()
    heard: Mapping[str, float] = field(default_factory=dict)
    missing: str = ""

    @property
    def at(self) -> float:
        """When it was taken, seconds since the epoch."""
        return self.snapshot.at

    def is_silent(self, worker: str) -> bool:
        """Whether a worker has not answered this time."""
        return self.heard.get(worker, self.at) < self.at

    def on(self, queue: str) -> list[WorkerState]:
        """The workers of a queue."""
        return [state for state in self.workers if queue in state.queues]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """How one queue moves; None is what nobody tells.

    Args:
        running: jobs that workers run now.
        slots: how many they could.
        arrivals: messages a second that became ready, those too that come back for another attempt.
        done: attempts a second that ended, whether well or not.
        failed: of these, those that did not end well.
        oldest: seconds that the oldest ready message has waited at most.
        drain: seconds until nothing would be ready, if nothing came any more; infinite while nothing is done.
    """

    running: int | None = None
    slots: int | None = None
    arrivals: float | None = None
    done: float | None = None
    failed: float | None = None
    oldest: float | None = None
    drain: float | None = None


class Course:
    """Reckons from one look to the next.

    Args:
        window: seconds that rates are taken over, or one look where looks are further apart.
    """

    def __init__(self, window: float = WINDOW) -> None:
        self._window = window
        self._looks: deque[Look] = deque()
        self._empty_at: dict[str, float] = {}

    def take(self, look: Look) -> dict[str, Flow]:
        """How each queue moves, as of this look."""
        before = self._before(look)
        for counts in look.snapshot.queues:
            if counts.ready == 0:
                self._empty_at[counts.queue] = look.at
        self._looks.append(look)
        return {
            counts.queue: flow(look, before, counts, self._empty_at.get(counts.queue))
            for counts in look.snapshot.queues
        }

    def _before(self, look: Look) -> Look | None:
        while len(self._looks) > 1 and self._looks[0].at < look.at - self._window:
            self._looks.popleft()
        return self._looks[0] if self._looks else None


def flow(look: Look, before: Look | None, counts: Counts, empty_at: float | None = None) -> Flow:
    """How a queue moves between two looks.

    Args:
        look: the later one.
        before: the earlier one; None when there is none.
        counts: the queue, as of the later one.
        empty_at: when it was seen without a ready message, seconds since the epoch; None for never.
    """
    states = look.on(counts.queue)
    works = [work for state in states if (work := state.work.get(counts.queue)) is not None]
    told_by_all = len(works) == len(states) and len(works) >= counts.consumers
    return Flow(
        running=sum(job.queue == counts.queue for state in states for job in state.running)
        if states or not counts.consumers
        else None,
        slots=sum(work.slots for work in works) if told_by_all else None,
        oldest=_oldest(counts, look.at, works, empty_at),
        **(_rates(look, before, counts) if told_by_all and before is not None else {}),
    )


def _oldest(counts: Counts, at: float, works: list[QueueWork], empty_at: float | None) -> float | None:
    if not counts.ready:
        return None if counts.ready is None else 0.0
    started = [work for work in works if work.began]
    since = [max(started, key=lambda work: work.began).due] if started else []
    if empty_at is not None:
        since.append(empty_at)
    return max(0.0, at - max(since)) if since else None


def _rates(look: Look, before: Look, counts: Counts) -> dict[str, float]:
    elapsed = look.at - before.at
    was_ready = next((was.ready for was in before.snapshot.queues if was.queue == counts.queue), None)
    if elapsed <= 0 or counts.ready is None or was_ready is None:
        return {}
    moves = list(_moves(look, before, counts.queue))
    came = (
        counts.ready
        - was_ready
        + sum(now.received - then.received + now.unstarted - then.unstarted for now, then in moves)
    )
    done = sum(now.done - then.done for now, then in moves) / elapsed
    return {
        "arrivals": max(0.0, came / elapsed),
        "done": done,
        "failed": sum(now.failed - then.failed for now, then in moves) / elapsed,
        "drain": drain(counts.ready, done),
    }


def drain(ready: int, done: float) -> float:
    """Seconds until nothing is ready, at so many done a second."""
    if not ready:
        return 0.0
    return ready / done if done > 0 else math.inf


def _moves(look: Look, before: Look, queue: str) -> Iterator[tuple[QueueWork, QueueWork]]:
    """What each worker had done of a queue at both looks."""
    earlier = {(state.worker, state.since): state for state in before.on(queue)}
    for state in look.on(queue):
        now = state.work[queue]
        was = earlier.pop((state.worker, state.since), None)
        if was is not None:
            yield now, was.work.get(queue, now)
        else:  # one that has started meanwhile; of one that was not heard then nobody knows what was before
            yield now, _NOTHING if state.since >= before.at else now
    for state in earlier.values():  # RabbitMQ has taken back what it had not started
        if (then := state.work.get(queue)) is not None:
            yield _without_unstarted(then), then


_NOTHING = QueueWork(slots=0, unstarted=0, received=0, finished={}, due=0.0, began=0.0)


def _without_unstarted(work: QueueWork) -> QueueWork:
    return QueueWork(
        slots=0, unstarted=0, received=work.received, finished=work.finished, due=work.due, began=work.began
    )
