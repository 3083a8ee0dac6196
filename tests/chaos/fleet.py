"""The processes of a run: started, watched, started again when they end, and ended at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.journal import FOLDER, NAME, Journal
from tests.waiting import eventually

WATCH = 0.1  # seconds between two looks at all processes
END = 60.0  # seconds that processes have to end when told


@dataclass
class Member:
    """A command that is kept running.

    Args:
        name: such as `worker-a`.
        command: arguments for the Python interpreter.
        env: for it alone.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    life: int = 0
    process: subprocess.Popen[bytes] | None = None
    is_wanted: bool = True

    @property
    def title(self) -> str:
        """The name of the process that runs now; the next one is another."""
        return f"{self.name}.{self.life}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid


class Fleet:
    """Keeps its members running until `end`.

    Args:
        folder: for journals and logs.
        env: of all members.
        journal: where deaths are noted.
    """

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._folder = folder
        self._env = dict(env)
        self._journal = Journal(folder / "fleet.jsonl")
        self._lock = threading.RLock()
        self._ending = threading.Event()
        self.members: dict[str, Member] = {}
        self._watcher = threading.Thread(target=self._watch, name="fleet", daemon=True)
        self._watcher.start()

    def add(self, member: Member) -> None:
        with self._lock:
            self.members[member.name] = member
            self._start(member)

    def log(self, member: Member) -> str:
        """What the process that runs now has written to standard error."""
        path = self._folder / f"{member.title}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def wait_consuming(self, timeout: float = 60.0) -> None:
        """Wait until every worker consumes."""
        workers = [member for member in self.members.values() if member.name.startswith("worker")]
        eventually(
            lambda: all(
                self._is_alive(worker) and '"event": "consuming"' in self.log(worker) for worker in workers
            ),
            timeout=timeout,
            what="all workers consume",
        )

    def _is_alive(self, member: Member) -> bool:
        with self._lock:
            return member.process is not None and member.process.poll() is None

    def kill(self, name: str) -> None:
        """SIGKILL to the process alone, not to its children; it is started again."""
        with self._lock:
            member = self.members[name]
            self._note_death(member, "killed")
            os.kill(member.pid, signal.SIGKILL)

    def send(self, name: str, number: signal.Signals) -> None:
        """A signal to the process and its children."""
        with self._lock, suppress(ProcessLookupError):
            os.killpg(self.members[name].pid, number)

    def end(self, prefix: str) -> dict[str, int]:
        """SIGTERM to the members whose name begins so; gives the codes with which they ended.

        One that does not end, or not well, is noted as a defect.
        """
        with self._lock:
            members = [member for member in self.members.values() if member.name.startswith(prefix)]
            for member in members:
                member.is_wanted = False
                if member.process is not None:
                    member.process.terminate()
        deadline = time.monotonic() + END
        return {member.title: self._code_of(member, deadline) for member in members}

    def _code_of(self, member: Member, deadline: float) -> int:
        assert member.process is not None
        try:
            code = member.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(member.pid, signal.SIGKILL)
            code = member.process.wait()
        if code != 0:
            self._journal.note("defect", worker=member.title, text=f"told to end, it ended with {code}")
        return code

    def close(self) -> None:
        """Kill what still runs."""
        self._ending.set()
        self._watcher.join()
        for member in self.members.values():
            if member.process is not None:
                with suppress(ProcessLookupError):
                    os.killpg(member.pid, signal.SIGKILL)
                member.process.wait()

    def _watch(self) -> None:
        while not self._ending.wait(WATCH):
            with self._lock:
                for member in self.members.values():
                    if member.is_wanted and member.process is not None and member.process.poll() is not None:
                        self._note_death(member, f"exit {member.process.returncode}")
                        self._start(member)

    def _note_death(self, member: Member, how: str) -> None:
        self._journal.note("died", worker=member.title, how=how)

    def _start(self, member: Member) -> None:
        member.life += 1
        env = {**self._env, **member.env, FOLDER: str(self._folder), NAME: member.title}
        with (self._folder / f"{member.title}.log").open("wb") as log:
            member.process = subprocess.Popen(
                [sys.executable, *member.command],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
