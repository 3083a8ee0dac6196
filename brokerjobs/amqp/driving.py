"""Who drives an event loop: its own thread, or a caller that waits for what the loop brings.

A loop that only its thread drives makes each caller change threads twice, there and back, which may take longer than
the work. So the thread rests while there is nothing to do, and a caller that comes then drives the loop until it has
its answer. When several come at once the thread serves them all, and when nobody comes for a while it serves the
connection (heartbeats).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from pika.adapters.select_connection import IOLoop

from brokerjobs.amqp.sending import Sending

PATIENCE = 0.05  # seconds in which no caller drives, after which the thread does


class Driving:
    """The right to drive a loop, which one thread has at a time.

    Args:
        loop: of the client library.
        is_ready: whether what callers want of it can be done at once.
        is_calm: whether it is ready, and has nothing to do for anybody.
    """

    def __init__(self, loop: IOLoop, is_ready: Callable[[], bool], is_calm: Callable[[], bool]) -> None:
        self._loop = loop
        self._is_ready = is_ready
        self._is_calm = is_calm
        # The handler of a signal may send, within a send of its thread: what callers use must let it in again.
        self._claiming = threading.RLock()
        self._calls: SimpleQueue[None] = SimpleQueue()
        self._driver: Any = None  # the thread's `self`, or what a caller waits for
        self._callers_thread = 0
        self._drives = 0
        self._alarm = float("inf")
        self._has_stopped = False
        self.is_broken = (
            False  # a caller was interrupted while it drove: nobody knows how far the loop has got
        )

    # -- callers

    @property
    def is_by_this_caller(self) -> bool:
        """Whether this thread drives as a caller: so what asks is the handler of a signal, or the like."""
        return self._driver not in (None, self) and self._callers_thread == threading.get_ident()

    def call(self) -> None:
        """Have the thread drive, unless somebody does."""
        if self._driver is None and self._calls.empty():
            self._calls.put(None)

    def drive(self, sending: Sending, deadline: float, begin: Callable[[], None]) -> bool:
        """Drive until there is an answer, or the loop is not ready any more; False where somebody else drives.

        Args:
            sending: what the caller waits for.
            deadline: of the monotonic clock.
            begin: what to do first.
        """
        is_whole = False
        try:
            with self._claiming:
                if self._driver is None and not self.is_broken:
                    self._callers_thread = threading.get_ident()
                    self._driver = sending
            if self._driver is not sending:
                return False
            begin()
            self._until(sending, deadline)
            is_whole = True
            return True
        finally:
            # A signal's handler, which may raise, can run at any call: so none is made before the loop is let go.
            if self._driver is sending:
                self._drives += 1
                if not is_whole:
                    self.is_broken = sending.is_given_up = True
                self._driver = None
                if not is_whole or not self._is_calm():
                    self.call()

    def _until(self, sending: Sending, deadline: float) -> None:
        while not sending.is_answered and (left := deadline - time.monotonic()) > 0 and self._is_ready():
            if deadline < self._alarm:  # so that the loop does not wait longer
                self._alarm = deadline
                self._loop.call_later(left, self._rang)
            self._loop.poll()
            self._loop.process_timeouts()

    def _rang(self) -> None:
        self._alarm = float("inf")

    # -- the thread

    def serve(self) -> None:
        """Drive what no caller drives, until stopped or broken."""
        self._loop.activate_poller()
        try:
            while True:
                with self._claiming:
                    # It ends when a caller that drives has let go, and not before: then the loop is closed.
                    if self._driver is None:
                        if self._has_stopped or self.is_broken:
                            return
                        self._driver = self
                if self._driver is self:
                    self._until_calm()
                    self._driver = None
                # Not if somebody has come in this very moment, and saw us drive.
                if self._driver is not None or self._is_calm():
                    self._rest()
        finally:
            self._loop.deactivate_poller()

    def stop(self) -> None:
        """End the thread; called on the loop."""
        self._has_stopped = True

    def _until_calm(self) -> None:
        while True:
            self._loop.poll()
            self._loop.process_timeouts()
            if self._has_stopped or self._is_calm():
                return

    def _rest(self) -> None:
        """Until called, or nobody has driven for a while."""
        drives = -1
        while drives != self._drives:
            drives = self._drives
            try:
                self._calls.get(timeout=PATIENCE)
            except Empty:
                continue
            return
