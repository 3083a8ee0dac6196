"""Child processes for isolated jobs: one job at a time in each, killed when it outruns its time.

A child is a fresh interpreter, never a fork of this process with its threads, locks and event loop. It imports the
consumer by itself, runs the start-up hooks, then jobs and the middleware around them. Policies and the other hooks
stay here: they are told also of a job whose process has died. Children are kept for the next job, replaced when
they die, and renewed after many jobs. They never outlive this process, however it ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from brokerjobs import tracing
from brokerjobs.context import Context
from brokerjobs.durations import text
from brokerjobs.errors import ConfigurationError, JobCrashed, JobTimeout
from brokerjobs.executor.children import Child, ChildDied, Program
from brokerjobs.executor.exits import OUT_OF_MEMORY, TIMEOUT, death_word, exit_reason
from brokerjobs.executor.parcels import Error, Result
from brokerjobs.executor.pipe import Broke, Order, OutOfMemory
from brokerjobs.failure import Failure, said_of
from brokerjobs.job import Job
from brokerjobs.logs import log

JOBS_PER_CHILD = 1000  # then a new one takes its place: what leaks, leaks so far
IDLE_TIME = 300.0  # seconds without a job after which a child ends
LAST_WORDS = 0.25  # seconds beyond its timeout in which a job writes down where it stood
TRIES = 3


class NoProcess(Exception):
    """There is none to run a job in; says why."""


class Processes:
    """Children that run jobs of one consumer.

    Args:
        program: what they run.
        limit: how many there may be.
        on_death: told in one word why a child died under its job: `SIGSEGV`, `exit`, `memory`, `timeout`.
    """

    def __init__(
        self, program: Program, limit: int, on_death: Callable[[str], None] = lambda _: None
    ) -> None:
        self._program = program
        self._on_death = on_death
        self._places = asyncio.Semaphore(limit)
        self._idle: list[Child] = []
        self._expiries: dict[Child, asyncio.TimerHandle] = {}
        self._ending: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start one child, to learn now whether they can work.

        Raises:
            ConfigurationError: why they cannot.
        """
        try:
            self._keep(await self._program.start())
        except ChildDied as error:
            raise ConfigurationError(f"a process for isolated jobs {error}") from None

    async def run(self, job: Job[..., Any], context: Context) -> Any:
        """What the job's function returns, run in a child.

        Raises:
            JobTimeout: it took longer; its process was killed.
            JobCrashed: it took its process with it.
            NoProcess: nothing of it ran.
            Exception: whatever it raised, or a stand-in.
        """
        order = Order(context.message, context.redelivered, job.timeout, job.memory_limit, tracing.carried())
        async with self._places:
            for _ in range(TRIES):
                child = await self._take()
                try:
                    await child.begin(order)
                except Broke:  # it died before it got the job, which is none of the job's doing
                    self._discard(child)
                    continue
                except BaseException:
                    self._discard(child)
                    raise
                return await self._finish(child, job, context)
        raise NoProcess("its process died before it began, and so did the next ones")

    async def close(self) -> None:
        """End all children, with their shut-down hooks."""
        for child in list(self._idle):
            self._retire(child)
        if self._ending:
            await asyncio.wait(self._ending)

    # -- one job

    async def _finish(self, child: Child, job: Job[..., Any], context: Context) -> Any:
        asking = asyncio.get_running_loop().call_later(job.timeout, child.ask_where)
        try:
            async with asyncio.timeout(job.timeout + LAST_WORDS):
                reply = await child.reply(context)
        except TimeoutError:
            self._discard(child)
            self._on_death("timeout")
            log.warning("child killed", job=job.name, id=context.id, timeout=job.timeout)
            raise _told(child, JobTimeout(
                f"{job.name} was {TIMEOUT} of {text(job.timeout)}"
            )) from None  # fmt: skip
        except Broke:
            code = await child.exit_code()
            self._discard(child)
            self._on_death(death_word(code))
            raise _told(child, _crashed(job, exit_reason(code))) from None
        except BaseException:  # the worker is stopping
            self._discard(child)
            raise
        finally:
            asking.cancel()
        return self._opened(child, reply, job)

    def _opened(self, child: Child, reply: Result | Error | OutOfMemory, job: Job[..., Any]) -> Any:
        if isinstance(reply, OutOfMemory):
            self._discard(child)
            self._on_death("memory")
            error = _crashed(job, f"{OUT_OF_MEMORY}, its limit is {_size(job.memory_limit)}")
            said_of(error, _with_traceback(error, reply.error.failure.traceback))
            raise error
        self._keep(child)
        if isinstance(reply, Error):
            raise reply.error()
        try:
            return reply.value()
        except ValueError as error:
            log.warning("result not passed on", job=job.name, error=str(error))
            return None

    # -- children

    async def _take(self) -> Child:
        while self._idle:
            child = self._idle.pop()
            self._expiries.pop(child).cancel()
            if child.is_alive:
                return child
            self._discard(child)
        try:
            return await self._program.start()
        except ChildDied as error:
            raise NoProcess(f"its process {error}") from None

    def _keep(self, child: Child) -> None:
        if child.jobs >= JOBS_PER_CHILD:
            self._end(child.end())
            return
        self._idle.append(child)
        loop = asyncio.get_running_loop()
        self._expiries[child] = loop.call_later(IDLE_TIME, self._retire, child)

    def _retire(self, child: Child) -> None:
        self._idle.remove(child)
        self._expiries.pop(child).cancel()
        self._end(child.end())

    def _discard(self, child: Child) -> None:
        """Kill it, if it still lives, and forget it."""
        child.kill()
        self._end(child.dispose())

    def _end(self, ending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(ending)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


def _crashed(job: Job[..., Any], exit: str) -> JobCrashed:
    return JobCrashed(f"the process of {job.name} died: {exit}", exit=exit)


def _told(child: Child, error: Exception) -> Exception:
    """The error, with the child's own account of where it stood as its traceback."""
    said_of(error, _with_traceback(error, child.last_words()))
    return error


def _with_traceback(error: Exception, traceback: str) -> Failure:
    plain = Failure.of(error)
    return Failure(kind=plain.kind, text=plain.text, traceback=traceback)


def _size(limit: int | None) -> str:
    return f"{(limit or 0) / 2**20:,.0f} MiB"
