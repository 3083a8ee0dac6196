"""The parent, as a child process holds it: told reports, heard when it says `drain`, and missed when it is gone.

A thread listens, so that a child whose event loop is blocked does not outlive its parent either.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from brokerjobs.logs import log
from brokerjobs.supervisor.report import DRAIN, INTERVAL, Report

VARIABLE = "BROKERJOBS_PARENT"  # says the number of the socket, and whether reports are wanted
_REPORTS = "reports"


def environment(link: int, *, reports: bool) -> dict[str, str]:
    """What a child's environment says about its parent.

    Args:
        link: the child's end of a socket pair, inherited under this number.
        reports: whether the parent listens.
    """
    return {VARIABLE: f"{link}:{_REPORTS if reports else ''}"}


def attach() -> Parent | None:
    """The parent that has started this process to be a worker of its own, if one has."""
    number, _, wants = os.environ.pop(VARIABLE, "").partition(":")  # popped: it is not for what jobs start
    try:
        link = socket.socket(fileno=int(number))
    except (ValueError, OSError):
        return None
    link.set_inheritable(False)
    return Parent(link, wants_reports=wants == _REPORTS)


class Parent:
    """Listens from the start. Until `attend` there is nothing to drain, so the process ends when it shall drain.

    Args:
        link: this process's end of the socket pair.
        wants_reports: whether it reads what it is told.
        leave: ends the process.
    """

    def __init__(
        self, link: socket.socket, *, wants_reports: bool, leave: Callable[[int], object] = os._exit
    ) -> None:
        self.wants_reports = wants_reports
        self._link = link
        self._link.settimeout(INTERVAL)
        self._leave = leave
        self._lock = threading.RLock()
        self._drain: Callable[[], None] | None = None
        self._report: Callable[[], Report] | None = None
        self._patience = 0.0
        self._pending = b""
        threading.Thread(target=self._listen, name="brokerjobs-parent", daemon=True).start()

    def attend(
        self, drain: Callable[[], None], patience: float, report: Callable[[], Report] | None = None
    ) -> None:
        """From now on there is something to drain and to report.

        Args:
            drain: begins to drain; called from a thread, and perhaps more than once.
            patience: seconds that this may take once the parent is gone; then the process ends.
            report: how this process does; asked each second, from a thread.
        """
        with self._lock:
            self._drain, self._patience = drain, patience
            self._report = report if self.wants_reports else None

    def tell(self) -> None:
        """Report now; what a parent does not read in time it is told later."""
        with self._lock, suppress(OSError):
            if self._report is None:
                return
            self._flush()
            self._pending = self._report().line
            self._flush()

    def _flush(self) -> None:
        while self._pending:
            self._pending = self._pending[self._link.send(self._pending) :]

    def _listen(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for the main thread
        heard = b""
        while True:
            try:
                part = self._link.recv(64)
            except TimeoutError:
                self.tell()
                continue
            except OSError:
                break
            if not part:
                break
            heard += part
            if DRAIN in heard:
                heard = b""
                self._begin_to_drain()
        self._orphaned()

    def _begin_to_drain(self) -> None:
        with self._lock:
            if self._drain is not None:
                self._drain()
            else:
                self._leave(0)

    def _orphaned(self) -> None:
        self._link.close()
        self._begin_to_drain()
        log.warning("parent is gone", hint="draining")
        threading.Event().wait(self._patience)
        self._leave(1)
