"""The nursery: a process that has loaded what every worker needs, and that workers are forked from.

Nearly all of a worker's start is imports, and a third of its memory is what they leave behind. The nursery imports and
does nothing else: it has no thread, no event loop and no connection, which is what makes a fork of it a sound process.
Consumers are not loaded there: what they do while they are imported is for each worker alone.

It forks twice. The process in between ends at once, and the kernel gives the worker to the nearest ancestor that has
asked to adopt (prctl(2), "subreaper"), the parent: so that one waits for it and kills it like any child of its own. The
nursery itself holds nobody, and ends when no worker was wanted for a while.
"""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from brokerjobs import tracing
from brokerjobs.logs import log
from brokerjobs.supervisor.parent import environment

VARIABLE = "BROKERJOBS_NURSERY"  # says the number of its socket
IDLE = 5.0  # seconds after which a nursery that nobody asks ends
PATIENCE = 30.0  # seconds that its imports may take
WISH = b"worker"
NAME_OF_SELF = Path("/proc/self/comm")
_ADOPT = 36  # PR_SET_CHILD_SUBREAPER


class Forked:
    """A worker process that was forked for us; as much of `subprocess.Popen` as its parent needs."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._reaping = threading.Lock()

    def wait(self) -> int:
        """Return how it ended, as `Popen` spells it."""
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with self._reaping:  # from here on its number may be another's
            if self.returncode is None:
                self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it is still there."""
        with self._reaping:
            if self.returncode is None:
                os.kill(self.pid, number)


class Nursery:
    """The parent's end.

    Args:
        command: starts a process that calls `serve`.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._link: socket.socket | None = None
        self._works = sys.platform == "linux"

    def start(self) -> tuple[Forked, socket.socket] | None:
        """A worker and our end of its socket pair; None where they cannot be had so, now or ever."""
        if not self._works:
            return None
        if self._link is not None:
            try:
                return self._ask(self._link)
            except OSError:  # it had just ended, as it does when nobody asks
                self.close()
        try:
            self._link = self._open()
            return self._ask(self._link)
        except OSError as error:
            self._works = False
            self.close()
            log.warning("workers are not forked", error=str(error), hint="each loads for itself")
            return None

    def close(self) -> None:
        """Let it end."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def _open(self) -> socket.socket:
        ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with theirs:
            try:
                process = subprocess.Popen(
                    self._command,
                    process_group=0,
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env={**tracing.uninstrumented(os.environ), VARIABLE: str(theirs.fileno())},
                )
            except OSError:
                ours.close()
                raise
        threading.Thread(target=process.wait, name="brokerjobs-nursery", daemon=True).start()
        ours.settimeout(PATIENCE)
        return ours

    def _ask(self, link: socket.socket) -> tuple[Forked, socket.socket]:
        ours, theirs = socket.socketpair()
        try:
            with theirs, _adopting():
                socket.send_fds(link, [WISH], [theirs.fileno()])
                answer = link.recv(16)
                if not answer:
                    raise ConnectionError("the nursery has ended")
                pid = int(answer)
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # is it ours?
        except OSError:
            ours.close()  # which ends a worker that nobody holds
            raise
        return Forked(pid), ours


@contextmanager
def _adopting() -> Iterator[None]:
    """Be given processes whose parents have ended."""
    import ctypes  # which only a parent needs

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_ADOPT, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    try:
        yield
    finally:
        libc.prctl(_ADOPT, 0, 0, 0, 0)


def serve(load: Callable[[], object]) -> None:
    """Be the nursery; returns in each worker only.

    Args:
        load: imports what workers need, and does nothing else.
    """
    link = socket.socket(fileno=int(os.environ.pop(VARIABLE)))
    name = NAME_OF_SELF.read_text()
    NAME_OF_SELF.write_text("nursery")  # which is what `ps` and `top` show
    gc.disable()  # nothing of this is ever garbage
    load()
    gc.freeze()  # or the first collection in each worker would write to every page, and so copy it
    gc.enable()
    link.settimeout(IDLE)
    while threading.active_count() == 1:
        try:
            wish, (theirs, *_), _, _ = socket.recv_fds(link, len(WISH), 1)
        except (OSError, ValueError):  # nobody asks, or nobody is there to ask
            break
        pid = _fork_twice() if wish == WISH else None
        if pid == 0:
            link.close()
            os.setpgid(0, 0)
            NAME_OF_SELF.write_text(name)
            os.environ.update(environment(theirs, reports=True))
            return
        os.close(theirs)
        link.send(str(pid).encode())
    os._exit(0)


def _fork_twice() -> int:
    """A grandchild: gives 0 there, and here its number, when its own parent has gone."""
    reading, writing = os.pipe()
    between = os.fork()
    if not between:
        try:
            pid = os.fork()
            if not pid:
                os.close(reading)
                os.close(writing)
                return 0
            os.write(writing, str(pid).encode())
        except OSError:
            os.write(writing, b"0")
        os._exit(0)
    pid = int(os.read(reading, 16))
    os.close(reading)
    os.close(writing)
    os.waitpid(between, 0)
    if not pid:
        os._exit(1)  # the parent's own way of starting a process will say why
    return pid
