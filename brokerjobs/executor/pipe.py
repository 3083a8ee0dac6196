"""What a worker and a child process say to each other: pickled values, each after its length.

worker                child
Setup           ►
                ◄     Ready, or Broken
Order           ►
                ◄     Begun
                ◄     Decided: when the job decides by hand
                ◄     Result, Error or OutOfMemory
…
Stop            ►     (the pipe ends without it: the worker has died)
"""

from __future__ import annotations

import pickle
import signal
import socket
import struct
import threading
from asyncio import StreamReader, StreamWriter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from brokerjobs.executor.parcels import Error
from brokerjobs.message import Message
from brokerjobs.outcome import Outcome
from brokerjobs.settings import Settings

# Tells a child to write down where its threads stand. A clock of its own for each job would be a thread for each.
WHERE = signal.SIGUSR2

_LENGTH = struct.Struct("!Q")


@dataclass(frozen=True, slots=True)
class Setup:
    """What a child needs to be like its worker.

    Args:
        parent: process id of the worker.
        path: `sys.path` there.
        python_path: the worker's own PYTHONPATH, which the child's jobs shall see.
        module: where the consumer is declared.
        queue: its queue.
        settings: the worker's.
        faults: descriptor of a file for the tracebacks of a dying child.
    """

    parent: int
    path: tuple[str, ...]
    python_path: str | None
    module: str
    queue: str
    settings: Settings
    faults: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The consumer is imported and its start-up hooks have run."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The child cannot work; says why."""

    why: str


@dataclass(frozen=True, slots=True)
class Order:
    """A job to run.

    Args:
        message: what to run.
        redelivered: for the job to know.
        timeout: seconds after which the worker kills the child.
        memory_limit: bytes; None for no limit.
        trace: the context of the worker's span.
    """

    message: Message
    redelivered: bool
    timeout: float
    memory_limit: int | None
    trace: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Begun:
    """What happens to the child from now on is the job's doing."""


@dataclass(frozen=True, slots=True)
class Decided:
    """The job has decided by hand."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """The job needed more memory than its limit; the child ends."""

    error: Error


@dataclass(frozen=True, slots=True)
class Stop:
    """Run the shut-down hooks, and end."""


class Broke(Exception):
    """The pipe has ended: the other side died."""


class ChildEnd:
    """The child's end of the pipe; any thread may send."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, value: Any) -> None:
        """Returns when the other side will get it, even if this process dies now."""
        with self._lock:
            self._connection.sendall(_frame(value))

    def receive(self) -> Any:
        """Raises Broke when the other side has gone."""
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        return pickle.loads(self._read(length))

    def _read(self, length: int) -> bytes:
        found = bytearray()
        while len(found) < length:
            try:
                part = self._connection.recv(length - len(found))
            except OSError:
                part = b""
            if not part:
                raise Broke
            found += part
        return bytes(found)


class WorkerEnd:
    """The worker's end of the pipe, on its event loop."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, value: Any) -> None:
        """Raises Broke when the other side has gone."""
        try:
            self._writer.write(_frame(value))
            await self._writer.drain()
        except OSError:
            raise Broke from None

    async def receive(self) -> Any:
        """Raises Broke when the other side has gone."""
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            return pickle.loads(await self._reader.readexactly(length))
        except (EOFError, OSError):
            raise Broke from None

    def close(self) -> None:
        self._writer.close()


def _frame(value: Any) -> bytes:
    body = pickle.dumps(value)
    return _LENGTH.pack(len(body)) + body
