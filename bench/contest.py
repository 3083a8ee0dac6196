"""Contestants as a section sees them: senders and workers in processes of their own, queues that are emptied."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event

import pika

from bench import job
from bench.adapter import Adapter, Order, Plan, Style
from bench.brokers import cpu_of_process, pss_mib

START_TIMEOUT = 90.0  # seconds from the start of a worker to its first job
STALL_TIMEOUT = 30.0  # seconds without a job's end after which a worker stands still
SEND_TIMEOUT = 300.0
STOP_TIMEOUT = 40.0
FILLED_AT_ONCE = 100_000
LOOK = 0.01


class OutOfContest(Exception):
    """A contestant did not do what was asked: no figure for this round, and a word below the table."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Where everything runs.

    Args:
        url: of RabbitMQ.
        redis: URL of Redis; empty where there is none.
    """

    url: str
    redis: str = ""

    def plan(
        self,
        who: type[Adapter],
        *,
        style: Style = "native",
        at_once: int = 200,
        prefetch: int | None = None,
        processes: int = 1,
        queues: int = 1,
        tag: str = "",
    ) -> Plan:
        """A plan for this contestant, with queues that nobody else uses, and no other tag."""
        names = tuple(f"bench-{who.__name__.lower()}-{tag or style}-{number}" for number in range(queues))
        prefetch = at_once if prefetch is None else prefetch
        store = self.redis if who.on == "redis" else ""
        return Plan(self.url, names, store, style, at_once, prefetch, processes)

    def empty(self, plan: Plan) -> None:
        """Throw away what a round has left."""
        if plan.redis:
            import redis

            with redis.Redis.from_url(plan.redis) as store:
                store.flushall()
            return
        for name in plan.queues:
            with self._channel() as channel, suppress(pika.exceptions.ChannelClosedByBroker):
                channel.queue_purge(name)

    def waiting(self, plan: Plan) -> int:
        """Messages that nobody holds, in all queues of RabbitMQ together; a queue that is not there has none."""
        found = 0
        for name in plan.queues:
            with self._channel() as channel, suppress(pika.exceptions.ChannelClosedByBroker):
                found += channel.queue_declare(name, passive=True).method.message_count
        return found

    @contextmanager
    def _channel(self) -> Iterator[pika.adapters.blocking_connection.BlockingChannel]:
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        try:
            yield connection.channel()
        finally:
            with suppress(pika.exceptions.AMQPError):
                connection.close()


@dataclass(frozen=True, slots=True)
class Sent:
    """What a sender used, from its first publish to its last confirm."""

    seconds: float
    cpu: float


def send(who: type[Adapter], plan: Plan, order: Order) -> Sent:
    """Publish from a process of its own; connecting is not counted.

    Raises:
        OutOfContest: it failed, or took too long.
    """
    try:
        ended = subprocess.run(
            [*_command(who), "send", _written(order)],
            env=_environment(plan),
            capture_output=True,
            text=True,
            timeout=SEND_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise OutOfContest(f"sending took more than {SEND_TIMEOUT:.0f} s") from None
    if ended.returncode:
        raise OutOfContest(f"its sender failed: {_last_line(ended.stderr)}")
    return Sent(**json.loads(ended.stdout.splitlines()[-1]))


def fill(who: type[Adapter], plan: Plan, count: int, *, text: int = 150) -> None:
    """Publish the fastest way that the contestant has, in parts: each has its own time."""
    how = next(how for how in ("unconfirmed", "pipelined", "each") if how in who.sends)
    for begun in range(0, count, FILLED_AT_ONCE):
        send(who, plan, Order(how=how, count=min(FILLED_AT_ONCE, count - begun), text=text))


class Worker:
    """A worker of one contestant, its processes together."""

    def __init__(self, who: type[Adapter], plan: Plan, **environment: str) -> None:
        self._title = who.title
        self.folder = Path(tempfile.mkdtemp(prefix="bench-", dir=_memory()))
        self._log = (self.folder / "log").open("w+b")
        self._process = subprocess.Popen(
            [*_command(who), "work"],
            env={**_environment(plan), "BENCH_TALLY": str(self.folder), **environment},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def done(self) -> int:
        return job.count(self.folder)

    @property
    def tally(self) -> job.Read:
        return job.read(self.folder)

    def wait_done(self, count: int, *, within: float = STALL_TIMEOUT) -> None:
        """Wait until so many jobs have ended.

        Raises:
            OutOfContest: it ended, or no job has for so many seconds.
        """
        pause, latest, seen = Event(), time.monotonic(), self.done
        while (done := self.done) < count:
            if done > seen:
                latest, seen = time.monotonic(), done
            if self._process.poll() is not None:
                raise OutOfContest(f"its worker ended, after {done:,} of {count:,} jobs: {self.last_words()}")
            if time.monotonic() - latest > within:
                raise OutOfContest(f"it stood still for {within:.0f} s after {done:,} of {count:,} jobs")
            pause.wait(LOOK)

    def wait_processes(self, count: int) -> None:
        """Wait until so many processes have a job.

        Raises:
            OutOfContest: it ended, or they do not come.
        """
        deadline, pause = time.monotonic() + START_TIMEOUT, Event()
        while (begun := len(list(self.folder.glob("*.tally")))) < count:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise OutOfContest(f"{begun} of its {count} processes had a job: {self.last_words()}")
            pause.wait(LOOK)

    def open_gate(self) -> float:
        """Let the jobs go on that were started with BENCH_GATED; gives when."""
        (self.folder / job.GO).touch()
        return time.monotonic()

    @property
    def pid(self) -> int:
        """Of the process that was started; it may have children."""
        return self._process.pid

    def pids(self) -> list[int]:
        """Its processes: those of its session, and whoever they have started in another."""
        relations = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                parent, _, session = path.read_text().rpartition(")")[2].split()[1:4]
                relations[int(path.parent.name)] = int(parent), int(session)
        return sorted(pid for pid in relations if self._is_ours(pid, relations))

    def _is_ours(self, pid: int, relations: dict[int, tuple[int, int]]) -> bool:
        while pid in relations:
            parent, session = relations[pid]
            if self.pid in (pid, session):
                return True
            pid = parent
        return False

    def cpu(self) -> float:
        """CPU seconds of all of them."""
        return sum(map(cpu_of_process, self.pids()))

    def pss(self) -> float:
        """MiB of all of them; pages that they share count once."""
        return sum(map(pss_mib, self.pids()))

    def log(self) -> str:
        """What it has said."""
        return (self.folder / "log").read_text(errors="replace")

    def last_words(self) -> str:
        return _last_line(self.log())

    def stop(self) -> None:
        """SIGTERM, and what has not ended by then is killed."""
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT)
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _command(who: type[Adapter]) -> list[str]:
    return [sys.executable, "-m", "bench.process", who.__module__.rpartition(".")[2], who.__name__]


def _environment(plan: Plan) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BROKERJOBS_")}
    return {**kept, "BENCH_PLAN": plan.written(), "PYTHONUNBUFFERED": "1"}


def _written(order: Order) -> str:
    return json.dumps(asdict(order))


def _memory() -> str | None:
    """A file system in memory, where there is one: tallies shall not wait for a disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
