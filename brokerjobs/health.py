"""How a process does, as values: what it says of itself to a probe, to systemd and to `brokerjobs health`.

**Live** is a process that goes on: nothing but its end would help one that is not. The broker has no say in that, or an
outage of RabbitMQ would end all workers, and the jobs that they run. **Ready** is a worker that takes what its queues
bring, or rests because somebody wants it to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 9464
LAST_PORT = 65_535
STILL = 10.0  # seconds without a sign of life after which nobody relies on a process


def port_of(value: object) -> int | None:
    """The port that a setting means: a number, 0 for a free one, None for `none`.

    Raises:
        ValueError: it is none of these.
    """
    text = str(value).strip().lower()
    if text == "none":
        return None
    if isinstance(value, bool) or not (text.isascii() and text.isdigit()) or int(text) > LAST_PORT:
        raise ValueError(f"must be a port up to {LAST_PORT}, 0 for a free one, or none")
    return int(text)


class Health(Protocol):
    """What a process knows of itself; its pulse is for `vitals` to feel."""

    @property
    def begun(self) -> bool:
        """Whether its start is over: what hinders it now has come later, and may pass."""

    @property
    def draining(self) -> bool: ...
    @property
    def stuck(self) -> list[str]:
        """Why it is not live."""

    @property
    def hindrances(self) -> list[str]:
        """Why it is not ready."""

    @property
    def remarks(self) -> list[str]:
        """What is unusual, and meant."""

    @property
    def words(self) -> str:
        """What it does, when nothing hinders it."""

    @property
    def details(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class QueueHealth:
    """One queue of a worker.

    Args:
        queue: as users say it.
        consuming: whether RabbitMQ delivers from it to this worker now.
        running: jobs that run.
        slots: jobs that may run at once.
        paused: who has paused it on purpose, and why.
        kept: who or what else keeps it from starting jobs, and why.
    """

    queue: str
    consuming: bool
    running: int
    slots: int
    paused: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, str] = field(default_factory=dict)

    @property
    def details(self) -> dict[str, Any]:
        return {
            "queue": self.queue,
            "consuming": self.consuming,
            "running": self.running,
            "slots": self.slots,
            "paused": {**self.paused, **self.kept},
        }


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """A worker.

    Args:
        broker: where RabbitMQ is, for people.
        queues: those that it shall consume, as soon as it knows them.
        connected: whether it has a session with RabbitMQ.
        trouble: why not; empty while it has not tried.
        blocked: whether RabbitMQ takes nothing from it that it publishes.
        begun: whether it has ever consumed all of its queues, or rested on purpose.
        draining: whether it was told to stop.
    """

    broker: str
    queues: Sequence[QueueHealth] = ()
    begun: bool = False
    connected: bool = False
    trouble: str = ""
    blocked: bool = False
    draining: bool = False

    @property
    def stuck(self) -> list[str]:
        return []

    @property
    def hindrances(self) -> list[str]:
        if self.draining:
            return ["draining"]
        if not self.connected:
            where, why = f"RabbitMQ at {self.broker}", self.trouble
            return [f"not connected to {where}: {why.removeprefix(where).strip()}"] if why else ["starting"]
        found = [
            f"queue {queue.queue} is not consumed: {why}"
            for queue in self.queues
            for why in queue.kept.values()
        ]
        if self.blocked:
            found.append(f"RabbitMQ at {self.broker} blocks publishers: a memory or disk alarm")
        return found

    @property
    def remarks(self) -> list[str]:
        return [
            f"queue {queue.queue} is paused by {who}: {why}"
            for queue in self.queues
            for who, why in queue.paused.items()
        ]

    @property
    def words(self) -> str:
        return "; ".join([f"consuming {' '.join(queue.queue for queue in self.queues)}", *self.remarks])

    @property
    def details(self) -> dict[str, Any]:
        return {
            "broker": {"address": self.broker, "connected": self.connected, "blocked": self.blocked},
            "queues": [queue.details for queue in self.queues],
        }


@dataclass(frozen=True, slots=True)
class ChildHealth:
    """A child of a parent.

    Args:
        pid: its number.
        said: the status that it told last; empty before it has told any.
        silence: seconds since then.
    """

    pid: int
    said: Mapping[str, Any]
    silence: float

    @property
    def stands_still(self) -> float:
        """Seconds since its event loop turned, as far as anybody knows."""
        return self.silence + float(self.said.get("stands_still", 0.0))

    @property
    def hindrances(self) -> list[str]:
        if self.said and self.silence > STILL:
            return [f"it has said nothing for {self.silence:.0f} s"]
        return list(self.said.get("reasons", ["starting"]))


@dataclass(frozen=True, slots=True)
class ParentHealth:
    """The parent of several workers.

    Args:
        processes: how many there shall be.
        children: those that there are.
        patience: seconds that the event loop of one may stand still; by then it should have been replaced.
        begun: whether any of them has consumed.
        draining: whether it was told to stop.
    """

    processes: int
    children: Sequence[ChildHealth]
    patience: float
    begun: bool = False
    draining: bool = False

    @property
    def stuck(self) -> list[str]:
        return [
            f"process {child.pid}: its event loop has stood still for {child.stands_still:.0f} s"
            for child in self.children
            if child.stands_still > self.patience
        ]

    @property
    def hindrances(self) -> list[str]:
        if self.draining:
            return ["draining"]
        unready = [child for child in self.children if child.hindrances]
        ready = len(self.children) - len(unready)
        if ready >= self.processes:  # while one is replaced, it is there beside the other
            return []
        found = [f"process {child.pid}: {why}" for child in unready for why in child.hindrances]
        if len(self.children) < self.processes:
            found.append(f"{len(self.children)} of {self.processes} processes are there")
        return found

    @property
    def remarks(self) -> list[str]:
        return list(dict.fromkeys(why for child in self.children for why in child.said.get("remarks", [])))

    @property
    def words(self) -> str:
        return "; ".join([f"{len(self.children)} processes", *self.remarks])

    @property
    def details(self) -> dict[str, Any]:
        return {
            "processes": self.processes,
            "children": [{"pid": child.pid, **child.said} for child in self.children],
        }
