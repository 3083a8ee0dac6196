"""Processes that end with their owner, even if the owner is ended by kill -9.

A small shell process, the reaper, reads from a pipe which processes it is to look after. When
nobody holds the other end any more, it kills them and removes their folder. So whoever holds the
pipe decides how long they live: this Python process alone, or a process that was given it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_SCRIPT = Path(__file__).with_name("reaper.sh")

# Standard input is the pipe: the process enters itself before it becomes what it is to be, so
# that there is no moment in which the owner's death would leave it behind.
_ENTER_AND_BECOME = 'echo "+ $$" >&0; exec "$@" </dev/null'
_BECOME_HOLDER = 'exec "$@" 3>&0 </dev/null'


class Reaper:
    """Starts processes and ends them when the last holder of its pipe is gone."""

    def __init__(self, remove: Path | None = None) -> None:
        """Start the reaper.

        Args:
            remove: a folder that is removed at the end.
        """
        self._process = subprocess.Popen(
            ["sh", _SCRIPT, remove or ""],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # a Ctrl-C in the terminal is for the owner, not for us
        )

    def start(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        holder: bool = False,
        inherit: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a process; its output is appended to `log`.

        Args:
            command: the program and its arguments.
            log: file for standard output and standard error.
            cwd: working folder.
            env: the whole environment; this process's own when None.
            holder: let it hold the pipe: it is not killed, and what it needs lives as long as it.
            inherit: further file descriptors that it gets.
        """
        assert self._process.stdin is not None
        with log.open("ab") as output:
            return subprocess.Popen(
                ["sh", "-c", _BECOME_HOLDER if holder else _ENTER_AND_BECOME, "sh", *command],
                stdin=self._process.stdin,
                stdout=output,
                stderr=output,
                cwd=cwd,
                env=env,
                pass_fds=inherit,
                start_new_session=True,
            )

    def forget(self, pid: int) -> None:
        """This process has ended: never kill its number again."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            os.write(self._process.stdin.fileno(), b"- %d\n" % pid)

    def let_go(self) -> None:
        """Give up this end of the pipe; if it was the last one, what still runs is killed."""
        self._close_pipe()
        leave_running(self._process)

    def close(self) -> None:
        """Kill what still runs and wait until that is done.

        Raises:
            subprocess.TimeoutExpired: a process that holds the pipe still runs.
        """
        self._close_pipe()
        self._process.wait(10)

    def _close_pipe(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()


def leave_running(process: subprocess.Popen[bytes]) -> None:
    """It is no longer ours: dropping the object shall not complain that the process runs."""
    process.returncode = 0
