"""One child process: its start, what is said to it, its end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from brokerjobs.context import Context
from brokerjobs.executor.exits import exit_reason
from brokerjobs.executor.parcels import Error, Result
from brokerjobs.executor.pipe import (
    WHERE,
    Begun,
    Broke,
    Broken,
    Decided,
    Order,
    OutOfMemory,
    Ready,
    Setup,
    Stop,
    WorkerEnd,
)
from brokerjobs.executor.running import HOOK_TIMEOUT
from brokerjobs.failure import TRACEBACK_LIMIT, cut_middle
from brokerjobs.settings import Settings

START_TIMEOUT = 60.0  # seconds to import the consumer; start-up hooks have their own time besides
BEGIN_TIMEOUT = 10.0  # seconds to take a job; a child that waits for one has nothing else to do
END_TIMEOUT = HOOK_TIMEOUT + 5.0  # seconds for shut-down hooks
EXIT_TIMEOUT = 5.0  # seconds between the end of its pipe and its own


class ChildDied(Exception):
    """A child did not come to work; says how that went."""


class Child:
    """A child that works."""

    def __init__(self, process: asyncio.subprocess.Process, pipe: WorkerEnd, faults: IO[bytes]) -> None:
        self.jobs = 0  # that it has begun
        self._process = process
        self._pipe = pipe
        self._faults = faults
        self._told = 0  # bytes of those that are of jobs before

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    async def ready(self) -> None:
        """Wait until it can take jobs.

        Raises:
            ChildDied: it cannot.
        """
        try:
            async with asyncio.timeout(START_TIMEOUT):
                reply = await self._pipe.receive()
        except TimeoutError:
            raise ChildDied(f"was not ready within {START_TIMEOUT:g} s") from None
        except Broke:
            raise ChildDied(f"ended at its start: {exit_reason(await self.exit_code())}") from None
        if isinstance(reply, Broken):
            raise ChildDied(f"cannot start: {reply.why}")
        assert isinstance(reply, Ready), reply

    async def begin(self, order: Order) -> None:
        """Give it a job, and wait until it has it; raises Broke."""
        self.jobs += 1
        self._told = os.fstat(self._faults.fileno()).st_size
        try:
            async with asyncio.timeout(BEGIN_TIMEOUT):
                await self._pipe.send(order)
                begun = await self._pipe.receive()
        except TimeoutError:
            raise Broke from None
        assert isinstance(begun, Begun), begun

    async def reply(self, context: Context) -> Result | Error | OutOfMemory:
        """How the job ended; what it decides by hand before goes to the context. Raises Broke."""
        while isinstance(said := await self._pipe.receive(), Decided):
            context.settle(said.outcome)
        assert isinstance(said, Result | Error | OutOfMemory), said
        return said

    async def exit_code(self) -> int:
        """Of a child whose pipe has ended; one that lives on without it is killed."""
        try:
            async with asyncio.timeout(EXIT_TIMEOUT):
                return await self._process.wait()
        except TimeoutError:
            self.kill()
            return await self._process.wait()

    def ask_where(self) -> None:
        """Let it write down where its threads stand, for `last_words`."""
        if self.is_alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, WHERE)

    def last_words(self) -> str:
        """Where its threads stood when it crashed or outran its time, in its last job."""
        said = os.pread(self._faults.fileno(), 16 * TRACEBACK_LIMIT, self._told)
        return cut_middle(said.decode(errors="replace").strip(), TRACEBACK_LIMIT)

    def kill(self) -> None:
        """Kill it at once, and what it has started."""
        if self.is_alive:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    async def dispose(self) -> None:
        """Wait for its end, and let go of what it held here."""
        await self._process.wait()
        self._pipe.close()
        self._faults.close()

    async def end(self) -> None:
        """Let it run its shut-down hooks and end; kill it when it takes too long."""
        try:
            async with asyncio.timeout(END_TIMEOUT):
                await self._pipe.send(Stop())
                await self._process.wait()
        except (Broke, TimeoutError):
            self.kill()
        await self.dispose()


@dataclass(frozen=True, slots=True)
class Program:
    """What the children of one consumer run.

    Args:
        module: in which the consumer is declared; children import it.
        queue: of the consumer.
        settings: those of the worker.
    """

    module: str
    queue: str
    settings: Settings

    async def start(self) -> Child:
        """Start a child, and wait until it can take jobs.

        Raises:
            ChildDied: why it cannot.
        """
        child = await self._begin()
        try:
            await child.ready()
        except BaseException:
            child.kill()
            await asyncio.shield(asyncio.ensure_future(child.dispose()))
            raise
        return child

    async def _begin(self) -> Child:
        ours, theirs = socket.socketpair()
        faults = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the child)
        try:
            with theirs:
                process = await self._spawn(theirs.fileno(), faults.fileno())
            pipe = WorkerEnd(*await asyncio.open_connection(sock=ours))
        except BaseException:
            ours.close()  # what was started ends with it
            faults.close()
            raise
        child = Child(process, pipe, faults)
        with suppress(Broke):
            await pipe.send(self._setup(faults.fileno()))
        return child

    async def _spawn(self, pipe: int, faults: int) -> asyncio.subprocess.Process:
        command = [sys.executable, "-P", "-m", "brokerjobs.executor.child", str(pipe), self.queue]
        try:
            return await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(pipe, faults),
                start_new_session=True,  # Ctrl-C is the worker's to handle; and what a job starts can be killed with it
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
        except OSError as error:
            raise ChildDied(f"cannot start: {error}") from None

    def _setup(self, faults: int) -> Setup:
        return Setup(
            parent=os.getpid(),
            path=tuple(sys.path),
            python_path=os.environ.get("PYTHONPATH"),
            module=self.module,
            queue=self.queue,
            settings=self.settings,
            faults=faults,
        )
