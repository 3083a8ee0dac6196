"""What private nodes share so that they could form a cluster: an epmd and an Erlang cookie."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

from brokerjobs.node.errors import NodeFailed
from brokerjobs.node.installation import Installation
from brokerjobs.node.ports import listens, reserve
from brokerjobs.node.reaper import Reaper, leave_running
from brokerjobs.node.waiting import wait_until

_EPMD_START = 10.0  # seconds


class Realm:
    """A folder, a cookie and an epmd of our own; neither the system's epmd nor ~ is touched.

    Its processes die with this one, or with the nodes that were started as `holder`.
    """

    def __init__(self, installation: Installation, folder: Path | None = None) -> None:
        """Start the epmd.

        Args:
            installation: whose epmd; it serves nodes of every version.
            folder: where; a temporary folder that is removed at the end when None.
        """
        self.temporary = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="brokerjobs-"))
        self.cookie = secrets.token_hex(16)
        self.reaper = Reaper(remove=self.folder if self.temporary else None)
        self._port = reserve()
        try:
            self._epmd = self._start_epmd(installation)
        except BaseException:
            self._port.close()
            self.reaper.close()
            raise

    @property
    def epmd_port(self) -> int:
        """Where the epmd listens, on 127.0.0.1 only."""
        return self._port.number

    def let_go(self) -> None:
        """Leave what runs to the nodes that hold this realm."""
        self._port.close()
        self.reaper.let_go()
        leave_running(self._epmd)

    def close(self) -> None:
        """End the epmd and whatever else still runs, and remove the folder if it is temporary."""
        self._epmd.kill()
        self._epmd.wait()
        self.reaper.forget(self._epmd.pid)
        self._port.close()
        self.reaper.close()
        if self.temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _start_epmd(self, installation: Installation) -> subprocess.Popen[bytes]:
        log = self.folder / "epmd.log"
        port = str(self._port.number)
        epmd = self.reaper.start(
            [installation.erlang / "epmd", "-port", port, "-address", "127.0.0.1"],
            log=log,
            cwd=self.folder,
            env={key: value for key, value in os.environ.items() if not key.startswith("ERL_")},
        )
        wait_until(lambda: listens(self._port.number) or epmd.poll() is not None, timeout=_EPMD_START)
        if epmd.returncode is not None or not listens(self._port.number):
            raise NodeFailed(f"epmd did not start: {log.read_text(errors='replace').strip()}")
        return epmd


_of_this_process: Realm | None = None
_guard = threading.Lock()


def of_this_process(installation: Installation) -> Realm:
    """The realm that all nodes of this process share; made at first use, closed at exit."""
    global _of_this_process
    with _guard:
        if _of_this_process is None:
            _of_this_process = Realm(installation)
            atexit.register(_close)
        return _of_this_process


def _close() -> None:
    global _of_this_process
    with _guard:
        realm, _of_this_process = _of_this_process, None
    if realm is not None:
        realm.close()


def _forget_after_fork() -> None:
    """A forked child shares the parent's nodes as little as its other processes."""
    global _of_this_process, _guard
    realm, _of_this_process, _guard = _of_this_process, None, threading.Lock()
    if realm is not None:
        realm.let_go()


os.register_at_fork(after_in_child=_forget_after_fork)
