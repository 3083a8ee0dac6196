"""Tell systemd how this process does (sd_notify(3), `Type=notify` and `WatchdogSec=` in its unit).

Datagrams to a socket, whose name is in the environment. There is none where systemd did not start the process, or does
not want to be told: then nothing is said.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, MutableMapping

from brokerjobs.health import Health
from brokerjobs.vitals import BEAT, Vitals


class Systemd:
    """Says what has changed since it last did; systemd ends a process whose watchdog is not fed in time.

    Args:
        vitals: of the process.
        patience: seconds that its end may take, which systemd then waits for, whatever its unit says.
        environ: of the process; what is read is taken out, as it is not for the processes that jobs start.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        vitals: Vitals,
        patience: float,
        environ: MutableMapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._vitals = vitals
        self._patience = patience
        self._clock = clock
        self._watchdog = _watchdog(environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", ""))
        self._link = _connect(environ.pop("NOTIFY_SOCKET", ""))
        self._fed = clock()
        self._words = ""
        self._is_ready = self._is_stopping = False

    @property
    def every(self) -> float:
        """Seconds after which `tell` is wanted again."""
        return min(BEAT, self._watchdog / 4) if self._watchdog else BEAT

    def tell(self) -> None:
        """Say what is new, and feed the watchdog when it is time."""
        health = self._vitals.health()
        if self._link is None:
            return
        if health.draining:
            self.stopping()
        reasons, now = self._vitals.not_ready, self._clock()
        is_ready = self._is_ready or not reasons
        words = self._words if self._is_stopping else _words(health, reasons)
        feeds = bool(self._watchdog) and now - self._fed >= self._watchdog / 2 and not self._vitals.not_live
        said = [
            *(["READY=1"] if is_ready and not self._is_ready else []),
            *([f"STATUS={words}"] if words != self._words else []),
            *(["WATCHDOG=1"] if feeds else []),
        ]
        if self._say(*said):
            self._is_ready, self._words, self._fed = is_ready, words, now if feeds else self._fed

    def stopping(self) -> None:
        """Say that the process ends, and how long that may take."""
        if not self._is_stopping:
            extend = f"EXTEND_TIMEOUT_USEC={self._patience * 1e6:.0f}"
            self._is_stopping = self._say("STOPPING=1", extend, "STATUS=draining")

    def close(self) -> None:
        self.stopping()
        if self._link is not None:
            self._link.close()
            self._link = None

    def _say(self, *lines: str) -> bool:
        """Whether it was said: who does not read fast enough is not waited for, and told the next time."""
        if not lines or self._link is None:
            return False
        text = "\n".join(line.replace("\n", " ") for line in lines)
        try:
            self._link.send(text.encode(errors="replace"))
        except OSError:
            return False
        return True


def _words(health: Health, reasons: list[str]) -> str:
    return f"not ready: {'; '.join(reasons)}" if reasons else health.words


def _connect(name: str) -> socket.socket | None:
    if not name.startswith(("/", "@")):
        return None
    link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    link.setblocking(False)
    try:
        link.connect("\0" + name[1:] if name.startswith("@") else name)
    except OSError:
        link.close()
        return None
    return link


def _watchdog(microseconds: str, pid: str) -> float:
    """Seconds after which systemd takes this process for dead; 0 when it does not watch it."""
    if not microseconds.isdigit() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(microseconds) / 1e6
