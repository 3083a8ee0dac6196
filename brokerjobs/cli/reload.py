"""`consume --reload`: the same worker as a child process, again after each change of a Python file.

The child ends with this process, however that ends.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from brokerjobs.cli.exits import DONE, DRAIN_TIMEOUT
from brokerjobs.errors import ConfigurationError
from brokerjobs.logs import log
from brokerjobs.supervisor.child import start


class Reloader:
    """Runs a command, and starts it anew when a Python file below a folder changes.

    Args:
        command: what to run.
        folder: what to watch.
        stop_timeout: seconds that the command may take to end before it is killed.
    """

    def __init__(self, command: list[str], folder: Path, stop_timeout: float) -> None:
        self._command = command
        self._folder = folder
        self._stop_timeout = stop_timeout
        self._stopping = threading.Event()
        self._reloading = False
        self._missed = False  # a signal came while the child was being started
        self._child: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None  # kept open: its end is that of the child

    def run(self) -> int:
        """Run until a signal; gives the exit code of the command that ran last.

        Raises:
            ConfigurationError: watchfiles is not installed.
        """
        try:
            import watchfiles
        except ImportError:
            raise ConfigurationError("--reload needs watchfiles: pip install 'brokerjobs[reload]'") from None
        for number in signal.SIGTERM, signal.SIGINT, signal.SIGHUP:
            signal.signal(number, self._handle)
        log.info("watching for changes", folder=str(self._folder))
        changed = watchfiles.watch(
            self._folder, watch_filter=watchfiles.PythonFilter(), stop_event=self._stopping
        )
        try:
            self._start()
            for changes in changed:
                log.info("reloading", changed=min(path for _, path in changes))
                self._reloading = True
                self._tell(signal.SIGTERM)
                self._wait()
                self._reloading = False
                self._start()
            return self._wait()
        finally:
            self._tell(signal.SIGKILL)

    def _start(self) -> None:
        if self._stopping.is_set():
            return
        self._child = None
        self._child, self._link = start(self._command, reports=False)
        if self._missed:
            self._tell(signal.SIGTERM)

    def _handle(self, *_: object) -> None:
        """Pass a signal on: the first drains the worker, which may drain already, the second ends it at once."""
        is_first = not self._stopping.is_set()
        self._stopping.set()
        if self._child is None:
            self._missed = True
        elif not (is_first and self._reloading):
            self._tell(signal.SIGTERM)

    def _tell(self, number: signal.Signals) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)

    def _wait(self) -> int:
        """Wait for the child's end; gives its exit code."""
        if self._child is None:
            return DONE
        try:
            code = self._child.wait(self._stop_timeout)
        except subprocess.TimeoutExpired:
            log.warning("worker killed", hint="it did not end in time; unfinished jobs are delivered again")
            self._child.kill()
            self._child.wait()
            return DRAIN_TIMEOUT
        return DONE if code == -signal.SIGTERM else code  # it was told before it had begun to listen


def child_command() -> list[str]:
    """This command, without --reload."""
    return [sys.executable, "-m", "brokerjobs", *(word for word in sys.argv[1:] if word != "--reload")]
