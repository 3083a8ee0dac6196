"""The job that every contestant runs, and the tally of it that a bench reads from outside the workers.

    BENCH_TALLY    folder in which each worker process keeps its tally
    BENCH_SLEEP    seconds that a job sleeps
    BENCH_BURN     rounds of arithmetic that a job does, 1,000,000 being about 50 ms
    BENCH_GATED    jobs wait until the folder has a file `go`: processes start one after another, and shall begin as one

A tally is a small file in memory: jobs that have ended, when the first began and when the last ended, and how long
the latest jobs took from their send to their start. All processes of a machine share its monotonic clock.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path

GO = "go"
LOOK = 0.02  # seconds
WAITS = 20_000  # of which a process remembers how long each took to start
_HEAD = struct.Struct("=Qdd")
_WAIT = struct.Struct("=d")
_SLEEP = float(os.environ.get("BENCH_SLEEP", "0"))
_BURN = int(os.environ.get("BENCH_BURN", "0"))


@dataclass(frozen=True, slots=True)
class Read:
    """The tallies of all processes of a worker together: counts, times of the monotonic clock, waits in seconds."""

    done: int
    first: float
    last: float
    waits: list[float]


class Tally:
    """The tally of this process, made at its first job, so that each forked process has its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._open()
        os.register_at_fork(after_in_child=self._open)

    def _open(self) -> None:
        self._lock = threading.Lock()
        self._memory: mmap.mmap | None = None
        self._began = self._done = 0
        self._first = 0.0

    def begin(self, sent: float) -> None:
        now = time.monotonic()
        with self._lock:
            if self._memory is None:
                self._memory, self._first = _create(self._folder / f"{os.getpid()}.tally"), now
            _WAIT.pack_into(self._memory, _HEAD.size + _WAIT.size * (self._began % WAITS), now - sent)
            self._began += 1

    def end(self) -> None:
        assert self._memory is not None
        with self._lock:
            self._done += 1
            _HEAD.pack_into(self._memory, 0, self._done, self._first, time.monotonic())


def read(folder: Path) -> Read:
    """What all processes have done so far."""
    heads, waits = [], []
    for path in folder.glob("*.tally"):
        content = path.read_bytes()
        head = _HEAD.unpack_from(content)
        if head[0]:
            heads.append(head)
            kept = content[_HEAD.size : _HEAD.size + _WAIT.size * min(head[0], WAITS)]
            waits += [wait for (wait,) in _WAIT.iter_unpack(kept)]
    if not heads:
        return Read(0, 0.0, 0.0, [])
    done, first, last = zip(*heads, strict=True)
    return Read(sum(done), min(first), max(last), waits)


def count(folder: Path) -> int:
    """Jobs that have ended, without a look at the rest."""
    found = 0
    for path in folder.glob("*.tally"):
        with path.open("rb") as file:
            head = file.read(_HEAD.size)
        found += _HEAD.unpack(head)[0] if len(head) == _HEAD.size else 0
    return found


def _create(path: Path) -> mmap.mmap:
    size = _HEAD.size + _WAIT.size * WAITS
    with path.open("w+b") as file:
        file.truncate(size)
        return mmap.mmap(file.fileno(), size)


class Gate:
    """Keeps jobs from going on until it is opened."""

    def __init__(self, path: Path, *, shut: bool) -> None:
        self._path = path
        self._is_shut = shut

    @property
    def is_shut(self) -> bool:
        self._is_shut = self._is_shut and not self._path.exists()
        return self._is_shut


_FOLDER = Path(os.environ.get("BENCH_TALLY", "/nowhere"))
_gate = Gate(_FOLDER / GO, shut=bool(os.environ.get("BENCH_GATED")))
_tally = Tally(_FOLDER)


async def arun(sent: float, text: str) -> None:
    """The job for those who run coroutines."""
    _tally.begin(sent)
    while _gate.is_shut:  # noqa: ASYNC110
        await asyncio.sleep(LOOK)  # noqa: TID251
    if _SLEEP:
        await asyncio.sleep(_SLEEP)  # noqa: TID251  (an I/O-bound job is one that waits)
    _tally.end()


def run(sent: float, text: str) -> None:
    """The job for threads and processes."""
    _tally.begin(sent)
    while _gate.is_shut:
        time.sleep(LOOK)  # noqa: TID251
    if _SLEEP:
        time.sleep(_SLEEP)  # noqa: TID251
    if _BURN:
        _burn(_BURN)
    _tally.end()


def _burn(rounds: int) -> int:
    total = 0
    for number in range(rounds):
        total ^= number
    return total
