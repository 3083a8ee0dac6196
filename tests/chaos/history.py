"""What happened in a run, as values: who sent what, what ran, what was broken when, what lay in queues at the end.

All times are seconds since the epoch, from one machine's clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

NEVER = float("inf")

Fate = Literal["ok", "refused", "unknown"]
End = Literal["done", "dead"]
Place = Literal["work", "waiting", "dead", "unrouted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """One call of a publisher, and what it was told.

    Args:
        id: of the job.
        queue: as the broker knows it, with its namespace.
        invoked: when the call began.
        ended: when it returned or raised; NEVER when its process died before.
        fate: `unknown` when it never ended.
        end: how this job must end.
        delay: seconds that were asked for.
    """

    id: str
    queue: str
    invoked: float
    ended: float = NEVER
    fate: Fate = "unknown"
    end: End = "done"
    delay: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a job's function.

    Args:
        hop: how often the message had been copied: for its next attempt, to run later, or because it met no queue.
        worker: the command that was started, all processes of it.
        pid: the process of it that had the message, though an isolated job runs in another.
        finished: NEVER when the process died before.
        succeeded: None when it did not finish.
        again_in: seconds of wait that a failed run asked for.
        later: whether it asked to run later, which spends no attempt.
    """

    id: str
    queue: str
    worker: str
    started: float
    pid: int = 0
    hop: int = 0
    attempt: int = 1
    redelivered: bool = False
    finished: float = NEVER
    succeeded: bool | None = None
    again_in: float = 0.0
    later: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A message that lay in a queue at the end."""

    id: str
    queue: str
    place: Place
    hop: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that the nemesis broke.

    Args:
        kind: such as `broker-kill`.
        began, ended: when it was broken and when it was whole again.
        target: the process that was hit, or the queue that was deleted.
        effects: what it can do to messages. `resend`: a publish may go unconfirmed. `undo`: what was settled
            lately may come back. `echo`: the broker may publish again what it moves between queues. `freeze`: its
            target stands still. `delete`: its target's messages are gone.
    """

    kind: str
    began: float
    ended: float
    target: str = ""
    effects: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A line of a worker's log, the end of its process (`died`), a `failpoint`, or what nobody foresaw (`defect`).

    Args:
        worker: the command that was started, all processes of it.
        pid: the process of it; 0 where there is only one.
    """

    worker: str
    event: str
    at: float
    id: str = ""
    pid: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a process held at one moment."""

    process: str
    at: float
    threads: int
    descriptors: int
    memory: int
    tasks: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    sends: Sequence[Send] = ()
    runs: Sequence[Run] = ()
    found: Sequence[Found] = ()
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Queues that the broker could not read in the end, and its words."""
    faults: Sequence[Fault] = ()
    notices: Sequence[Notice] = ()
    samples: Sequence[Sample] = ()
    calm: tuple[float, float] = (0.0, 0.0)
    """The time before the first fault, with full load: what is normal."""
    healed: float = 0.0
    """When the last fault was over."""
    loaded_until: float = field(default=NEVER)
    """When the publishers were told to end."""
