"""A child process, as its parent holds it. The end of its socket pair tells it when the parent is gone."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from brokerjobs.logs import log
from brokerjobs.supervisor.nursery import Forked, Nursery
from brokerjobs.supervisor.parent import environment
from brokerjobs.supervisor.report import DRAIN, Report

GRACE = 10.0  # seconds beyond the drain timeout for the endings of a worker: settling, hooks, goodbyes
LAST_WORDS = (
    1.0  # seconds for what an ended child has told; a process that it left behind may hold its socket
)
LONGEST_LINE = 64 * 1024 * 1024  # bytes


def start(
    command: Sequence[str], *, reports: bool, stdin: int | None = None
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a worker process; gives it and our end of its socket pair, which must stay open as long as it shall live.

    It is in a process group of its own, so that Ctrl-C on a terminal reaches the parent only: a worker that got it
    twice would take the second as "end at once", and cut off its jobs.

    Raises:
        OSError: the system allows no further process.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = subprocess.Popen(
                command,
                process_group=0,
                stdin=stdin,
                pass_fds=[theirs.fileno()],
                env={**os.environ, **environment(theirs.fileno(), reports=reports)},
            )
        except OSError:
            ours.close()
            raise
    return process, ours


class Child:
    """A worker process.

    Args:
        command: starts it.
        heard: called with each of its reports.
        nursery: forks it instead, if it can.

    Raises:
        OSError: the system allows no further process.
    """

    def __init__(
        self, command: Sequence[str], heard: Callable[[Child, Report], None], nursery: Nursery | None = None
    ) -> None:
        forked = nursery.start() if nursery is not None else None
        self._process: subprocess.Popen[bytes] | Forked
        self._process, self._link = forked or start(command, reports=True, stdin=subprocess.DEVNULL)
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._exited = asyncio.Event()
        self._consumes = asyncio.Event()
        self.report = Report()
        threading.Thread(target=self._wait, name=f"brokerjobs-child-{self.pid}", daemon=True).start()
        self._reading = asyncio.create_task(self._read())
        self._ending = asyncio.create_task(self._end())

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        """How it ended: its exit code, or the negative number of a signal; None while it lives."""
        return self._ending.result() if self._ending.done() else None

    async def ended(self) -> int:
        """Return its `code` once it has ended and all that it told was heard."""
        return await asyncio.shield(self._ending)

    async def consuming(self) -> bool:
        """Return True once it consumes, and False if it ended before."""
        consumes = asyncio.create_task(self._consumes.wait())
        await asyncio.wait({consumes, self._ending}, return_when=asyncio.FIRST_COMPLETED)
        consumes.cancel()
        return self._consumes.is_set()

    def drain(self) -> None:
        """Tell it to finish what runs and to end; telling it twice does no harm."""
        with suppress(OSError):  # it has just ended
            self._link.send(DRAIN)

    def kill(self) -> None:
        """End it at once."""
        self._process.send_signal(signal.SIGKILL)

    def _wait(self) -> None:
        self._process.wait()
        with suppress(RuntimeError):  # the parent's own end
            self._loop.call_soon_threadsafe(self._exited.set)

    async def _end(self) -> int:
        await self._exited.wait()
        await asyncio.wait({self._reading}, timeout=LAST_WORDS)
        self._reading.cancel()
        assert self._process.returncode is not None
        return self._process.returncode

    async def _read(self) -> None:
        reader, writer = await asyncio.open_connection(sock=self._link, limit=LONGEST_LINE)
        try:
            while line := await reader.readline():
                self._hear(line)
        except ConnectionError:
            return
        finally:
            writer.close()

    def _hear(self, line: bytes) -> None:
        try:
            self.report = Report.read(line)
        except (ValueError, TypeError):
            log.error("report ignored", pid=self.pid)
            return
        if self.report.consuming:
            self._consumes.set()
        self._heard(self, self.report)
