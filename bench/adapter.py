"""What a contestant fills in, and what it is told: a plan for its worker, an order for its sender."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

How = Literal["each", "pipelined", "unconfirmed"]
Style = Literal["native", "threads", "processes"]
Arguments = dict[str, Any]  # of the job: sent, text


@dataclass(frozen=True, slots=True)
class Plan:
    """How a worker shall run, and where.

    Args:
        url: of RabbitMQ.
        redis: URL of Redis; empty where there is none.
        style: `native`: as the contestant runs small jobs best; `threads`: plain functions in threads;
            `processes`: plain functions, at most one at a time in each process.
        at_once: jobs that run at once in a process.
        prefetch: messages that a process holds.
        processes: of the worker.
        queues: that it consumes; the sender takes turns.
    """

    url: str
    queues: tuple[str, ...]
    redis: str = ""
    style: Style = "native"
    at_once: int = 200
    prefetch: int = 200
    processes: int = 1

    @classmethod
    def given(cls) -> Plan:
        """The plan of this process."""
        found = json.loads(os.environ["BENCH_PLAN"])
        return cls(**{**found, "queues": tuple(found["queues"])})

    def written(self) -> str:
        return json.dumps(asdict(self))


class Adapter(ABC):
    """One contestant, set as its makers advise for speed without giving up what it can guarantee.

    Attributes:
        title: its row in the tables.
        package: distribution whose version is told.
        settings: what it is set to, in a few words.
        lacks: what it does not guarantee even so.
        sends: the ways in which it can publish.
        styles: in which its worker can run.
        coroutines: whether its jobs can be `async def`.
        forked: it has no way to run several processes, so the bench forks as many as the plan says.
        only_drains: a variant of another, which only the drain shows.
        fewer: it is given so many times fewer jobs than others, because it is slow.
        on: the broker that it needs.
    """

    title: ClassVar[str]
    package: ClassVar[str]
    settings: ClassVar[str]
    lacks: ClassVar[str] = ""
    sends: ClassVar[tuple[How, ...]] = ()
    styles: ClassVar[tuple[Style, ...]] = ()
    coroutines: ClassVar[bool] = False
    forked: ClassVar[bool] = False
    only_drains: ClassVar[bool] = False
    fewer: ClassVar[int] = 1
    on: ClassVar[Literal["rabbitmq", "redis"]] = "rabbitmq"

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def queue_at(self, turn: int) -> str:
        """The queue whose turn it is."""
        return self.plan.queues[turn % len(self.plan.queues)]

    @abstractmethod
    def open(self) -> None:
        """Connect as a sender, and declare the queues."""

    @abstractmethod
    def send(self, how: How, jobs: Iterator[Arguments]) -> None:
        """Publish jobs; returns when all are as safe as this way of sending makes them."""

    def close(self) -> None:  # noqa: B027  (not all have something to end)
        """End in good order."""

    def work(self) -> None:
        """Run a worker until SIGTERM."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Order:
    """What a sender shall do.

    Args:
        how: see `Adapter.sends`.
        count: of jobs.
        text: characters in each.
        rate: jobs a second at which they are due; 0 is one after another at once.
        pause: seconds between one that is sent and the next.
    """

    how: How
    count: int
    text: int = 150
    rate: float = 0.0
    pause: float = 0.0


def jobs(order: Order) -> Iterator[Arguments]:
    """The arguments of each job, at the time that it is due: `sent` is when that was."""
    text = "x" * order.text
    began = time.monotonic()
    for number in range(order.count):
        due = began + number / order.rate if order.rate else time.monotonic() + order.pause
        if (early := due - time.monotonic()) > 0:
            time.sleep(early)  # noqa: TID251  (blocks a loop too: nothing else shall happen on it)
        yield {"sent": due if order.rate else time.monotonic(), "text": text}


def entrants(module: str) -> list[type[Adapter]]:
    """The contestants of a module below `bench.contestants`, in its order."""
    loaded = importlib.import_module(f"bench.contestants.{module}")
    return [
        value
        for value in vars(loaded).values()
        if isinstance(value, type) and issubclass(value, Adapter) and value.__module__ == loaded.__name__
    ]


def find(module: str, name: str) -> type[Adapter]:
    return next(found for found in entrants(module) if found.__name__ == name)


def declare_ours(url: str) -> None:
    """The exchange and the queues of brokerjobs, as its workers declare them."""
    subprocess.run(
        [sys.executable, "-m", "brokerjobs", "topology", "apply"],
        env={**os.environ, "BROKERJOBS_URL": url, "BROKERJOBS_CONSUMERS": "bench.consumers"},
        check=True,
        stdout=subprocess.DEVNULL,
    )
