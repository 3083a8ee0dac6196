"""Threads for plain `def` jobs.

Not the standard library's pool: that one joins its threads when the interpreter ends, so one stuck job would
hold up the exit for ever, and it has no way to replace a thread that a job keeps beyond its timeout.

To change from one thread to another costs more than all else here, so it is done once for many calls. Results come
back in batches: one wake-up of the loop serves all jobs that finished meanwhile. And of several calls the first alone
wakes a thread. A job that keeps the interpreter's lock has no use for a second one, so that thread takes the others
too; but it tells the loop before, which comes round as soon as the lock is let go. If calls wait then, they need more
threads, and from there on each thread that takes a call wakes the next; until one has woken for nothing.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any, Literal


class Call:
    """One function call on its way through a thread, in a copy of this context; `done` is set on the loop."""

    __slots__ = ("context", "done", "error", "function", "result", "state")

    def __init__(self, function: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.function = function
        self.context = copy_context()
        self.done: asyncio.Future[None] = loop.create_future()
        self.result: Any = None
        self.error: BaseException | None = None
        self.state: Literal["waiting", "running", "finished", "abandoned"] = "waiting"

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
        self._lock = threading.Lock()  # for all that follows
        self._waiting: deque[Call] = deque()
        self._finished: deque[Call] = deque()
        self._idle: list[
            threading.Lock
        ] = []  # bells of sleeping threads, of which the last to sleep wakes first
        self._is_coming = False  # a thread that was woken or started and has not looked for a call yet
        self._is_told = False  # the loop, and it has not come round yet
        self._wakes_next = False  # each thread that takes a call
        self._is_closed = False
        self._threads = 0  # that will take another call
        self._open_calls = 0  # waiting or running in one of those

    def submit(self, function: Callable[[], Any]) -> Call:
        """Run the function in a thread, in a copy of this context.

        Raises:
            RuntimeError: the system allows no further thread.
        """
        call = Call(function, self.loop)
        with self._lock:
            self._start_if_needed(self._open_calls + 1)
            self._open_calls += 1
            self._waiting.append(call)
            if self._idle and not self._is_coming:
                self._wake_one()
        return call

    def abandon(self, call: Call) -> None:
        """Stop counting on a call that outran its timeout: a thread cannot be ended, so another takes its place."""
        with self._lock:
            if call.state == "waiting":
                self._waiting.remove(call)
            elif call.state == "running":
                self._threads -= 1
            else:
                return
            call.state = "abandoned"
            self._open_calls -= 1
            self._start_if_needed(self._open_calls)

    def close(self) -> None:
        """Let idle threads end; running ones end with their job."""
        with self._lock:
            self._is_closed = True
            while self._idle:
                self._wake_one()

    def _start_if_needed(self, open_calls: int) -> None:
        if open_calls > self._threads < self._limit:
            threading.Thread(target=self._work, name="brokerjobs-job", daemon=True).start()
            self._threads += 1
            self._is_coming = True

    def _wake_one(self) -> None:
        self._is_coming = True
        self._idle.pop().release()

    # -- on the threads

    def _work(self) -> None:
        bell = threading.Lock()
        bell.acquire()
        with self._lock:
            self._is_coming = False
        while (call := self._next(bell)) is not None:
            try:
                call.result = call.context.run(call.function)
            except BaseException as error:  # a job may raise anything, SystemExit included
                call.error = error
            if not self._ended(call):
                return  # abandoned: its successor already works
            del call  # while it waits for the next, a thread holds nothing of the last

    def _next(self, bell: threading.Lock) -> Call | None:
        """A call, once there is one; None when closed."""
        was_woken = False
        while True:
            with self._lock:
                if self._waiting:
                    return self._take()
                if self._is_closed:
                    return None
                if was_woken:
                    self._wakes_next = False
                self._idle.append(bell)
            bell.acquire()
            self._is_coming, was_woken = False, True

    def _take(self) -> Call:
        call = self._waiting.popleft()
        call.state = "running"
        if self._waiting and self._idle and not self._is_coming:
            if self._wakes_next:
                self._wake_one()
            elif not self._is_told:
                self._tell()
        return call

    def _ended(self, call: Call) -> bool:
        with self._lock:
            if call.state == "abandoned":
                return False
            call.state = "finished"
            self._open_calls -= 1
            self._finished.append(call)
            if not self._is_told:
                self._tell()
            return True

    def _tell(self) -> None:
        self._is_told = True
        with suppress(RuntimeError):  # the loop has ended, nobody waits any more
            self.loop.call_soon_threadsafe(self._come_round)

    # -- on the loop

    def _come_round(self) -> None:
        with self._lock:
            self._is_told = False
            finished, self._finished = self._finished, deque()
            if self._waiting and self._idle and not self._is_coming:
                self._wakes_next = True
                self._wake_one()
        for call in finished:
            call.stop_waiting()
