"""Threads for plain `def` jobs.

Not the standard library's pool: that one joins its threads when the interpreter ends, so one stuck job would
hold up the exit for ever, and it has no way to replace a thread that a job keeps beyond its timeout. Results
come back in batches: one wake-up of the loop serves all jobs that finished meanwhile.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from queue import SimpleQueue
from typing import Any, Literal


class Call:
    """One function call on its way through a thread; `done` is set on the loop."""

    __slots__ = ("done", "error", "function", "result", "state")

    def __init__(self, function: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.function = function
        self.done: asyncio.Future[None] = loop.create_future()
        self.result: Any = None
        self.error: BaseException | None = None
        self.state: Literal["queued", "running", "finished", "abandoned"] = "queued"

    @property
    def has_ended(self) -> bool:
        return self.state == "finished"

    def stop_waiting(self) -> None:
        """Let whoever waits for it go on."""
        if not self.done.done():
            self.done.set_result(None)

    def outcome(self) -> Any:
        """What the function returned or raised; to be asked once."""
        error, self.error = self.error, None
        try:
            if error is not None:
                raise error
            return self.result
        finally:
            del error  # it holds its traceback, which holds this frame


class Threads:
    """As many daemon threads as there are calls at once, up to a limit.

    Args:
        limit: how many may run; abandoned ones do not count.
    """

    def __init__(self, limit: int) -> None:
        self.loop = asyncio.get_running_loop()  # asked once: it costs a system call (Python 3.11)
        self._limit = limit
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._finished: deque[Call] = deque()
        self._woken = False
        self._lock = threading.Lock()
        self._threads = 0  # that will take another call
        self._open_calls = 0  # queued or running in one of those

    def submit(self, function: Callable[[], Any]) -> Call:
        """Run the function in a thread, in a copy of this context.

        Raises:
            RuntimeError: the system allows no further thread.
        """
        call = Call(functools.partial(copy_context().run, function), self.loop)
        with self._lock:
            self._start_if_needed(self._open_calls + 1)
            self._open_calls += 1
        self._calls.put(call)
        return call

    def abandon(self, call: Call) -> None:
        """Stop counting on a call that outran its timeout: a thread cannot be ended, so another takes its place."""
        with self._lock:
            if call.state not in ("queued", "running"):
                return
            if call.state == "running":
                self._threads -= 1
            self._open_calls -= 1
            call.state = "abandoned"
            self._start_if_needed(self._open_calls)

    def close(self) -> None:
        """Let idle threads end; running ones end with their job."""
        for _ in range(self._threads):
            self._calls.put(None)

    def _start_if_needed(self, open_calls: int) -> None:
        if open_calls > self._threads < self._limit:
            threading.Thread(target=self._work, name="brokerjobs-job", daemon=True).start()
            self._threads += 1

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            if not self._moved(call, "queued", "running"):
                continue
            try:
                call.result = call.function()
            except BaseException as error:  # a job may raise anything, SystemExit included
                call.error = error
            if not self._moved(call, "running", "finished"):
                return  # abandoned: its successor already works
            self._report(call)
            del call  # while it waits for the next, a thread holds nothing of the last

    def _moved(self, call: Call, before: str, after: Literal["running", "finished"]) -> bool:
        with self._lock:
            if call.state != before:
                return False
            call.state = after
            if after == "finished":
                self._open_calls -= 1
            return True

    def _report(self, call: Call) -> None:
        self._finished.append(call)
        if not self._woken:
            self._woken = True
            try:
                self.loop.call_soon_threadsafe(self._collect)
            except RuntimeError:  # the loop has ended, nobody waits any more
                return

    def _collect(self) -> None:
        self._woken = False
        while self._finished:
            self._finished.popleft().stop_waiting()
