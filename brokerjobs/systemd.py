"""Tell systemd how this process does (sd_notify(3), `Type=notify` and `WatchdogSec=` in its unit).

Datagrams to a socket, whose name is in the environment. There is none where systemd did not start the process, or does
not want to be told: then nothing is said.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

from brokerjobs.health import Health
from brokerjobs.vitals import BEAT, Vitals


class Systemd:
    """Says what has changed since it last did; systemd ends a process whose watchdog is not fed in time.

    Args:
        vitals: of the process.
        patience: seconds that its end may take, which systemd then waits for, whatever its unit says.
        environ: of the process; what is read is taken out, as it is not for the processes that jobs start.
    """

    def __init__(
        self,
        vitals: Vitals,
        patience: float,
        environ: MutableMapping[str, str] = os.environ,
    ) -> None:
        self._vitals = vitals
        self._patience = patience
        self._watchdog = _watchdog(environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", ""))
        self._link = _connect(environ.pop("NOTIFY_SOCKET", ""))
        self._words = ""
        self._has_begun = self._is_stopping = False

    @property
    def every(self) -> float:
        """Seconds after which `tell` is wanted again."""
        return min(BEAT, self._watchdog / 4) if self._watchdog else BEAT

    def tell(self) -> None:
        """Say what is new, and feed the watchdog: a blocked loop has all of its time from the moment that it stops.

        It is started once it has begun, not when it is ready: systemd ends what does not start in time, and an alarm of
        RabbitMQ may last.
        """
        health = self._vitals.health()
        if self._link is None:
            return
        if health.draining:
            self.stopping()
        has_begun = self._has_begun or (health.begun and not health.draining)
        words = self._words if self._is_stopping else _words(health, self._vitals.not_ready)
        said = [
            *(["READY=1"] if has_begun and not self._has_begun else []),
            *([f"STATUS={words}"] if words != self._words else []),
            *(["WATCHDOG=1"] if self._watchdog and not self._vitals.not_live else []),
        ]
        if self._say(*said):
            self._has_begun, self._words = has_begun, words

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
