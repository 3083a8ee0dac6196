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

from tests.chaos.journal import FOLDER, NAME, Journal, path_of
from tests.chaos.processes import Process, processes
from tests.waiting import eventually

WATCH = 0.1  # seconds between two looks at all members
END = 60.0  # seconds that processes have to end when told
OUTLIVED = 20.0  # seconds that what a process has started may go on without it: the drain timeout, and some
SEARCH = 1.0  # seconds between two searches for such
AT_WORK = 60.0  # seconds until a member's processes all work: a new one may have to rest before


@dataclass
class Member:
    """A command that is kept running.

    Args:
        name: such as `worker-a`.
        command: arguments for the Python interpreter.
        env: for it alone.
        children: how many processes it keeps running itself.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    children: int = 0
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
        outlived: seconds that what a member has started may outlive it.
    """

    def __init__(self, folder: Path, env: Mapping[str, str], *, outlived: float = OUTLIVED) -> None:
        self._folder = folder
        self._env = dict(env)
        self._outlived = outlived
        self._journal = Journal(folder / "fleet.jsonl")
        self._lock = threading.RLock()
        self._ending = threading.Event()
        self.bereaved: dict[str, float] = {}
        """Titles of ended processes of which something may live on, and until when it may."""
        self._searched = 0.0
        self.members: dict[str, Member] = {}
        self._watcher = threading.Thread(target=self._watch, name="fleet", daemon=True)
        self._watcher.start()

    def add(self, member: Member) -> None:
        with self._lock:
            self.members[member.name] = member
            self._start(member)

    def log(self, member: Member) -> str:
        """What the process that runs now, and those that it has started, have written to standard error."""
        path = self._folder / f"{member.title}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def wait_consuming(self, timeout: float = 60.0) -> None:
        """Wait until every worker consumes."""
        workers = [member for member in self.members.values() if member.name.startswith("worker")]
        eventually(
            lambda: all(self._is_alive(worker) and self._consumes(worker) for worker in workers),
            timeout=timeout,
            what="all workers consume",
        )

    def _consumes(self, member: Member) -> bool:
        return self.log(member).count('"event":"consuming"') >= max(1, member.children)

    def _is_alive(self, member: Member) -> bool:
        with self._lock:
            return member.process is not None and member.process.poll() is None

    def measured(self) -> list[tuple[str, int]]:
        """Processes by the names under which they are compared over a run."""
        with self._lock:
            members = [member for member in self.members.values() if self._is_alive(member)]
        return [
            *((member.title, member.pid) for member in members),
            *((f"{member.title}-{child}", child) for member in members for child in self.children(member)),
        ]

    def children(self, member: Member) -> list[int]:
        """The processes that a supervising member has now."""
        if not member.children:
            return []
        return sorted(process.pid for process in processes(self._folder) if process.parent == member.pid)

    def wait_at_work(self, member: Member, timeout: float = AT_WORK) -> Sequence[int]:
        """Wait until a supervising member has all its children, and each of them begins jobs; gives these.

        Raises:
            AssertionError: it does not come to that.
        """
        seen: dict[int, int] = {}
        at_work: list[int] = []

        def all_begin_jobs() -> bool:
            at_work[:] = [
                pid for pid in self.children(member) if self.noted(member, pid) > seen.setdefault(pid, 0)
            ]
            return len(at_work) == member.children

        seen.update((pid, self.noted(member, pid)) for pid in self.children(member))
        eventually(all_begin_jobs, timeout=timeout, what=f"all children of {member.title} work")
        return at_work

    def noted(self, member: Member, pid: int) -> int:
        """How much this process of it has written into its journal."""
        with suppress(FileNotFoundError):
            return path_of(self._folder, member.title, pid).stat().st_size
        return 0

    def kill(self, name: str, child: int | None = None) -> None:
        """SIGKILL to the process alone, or to a child of it alone; it is started again."""
        with self._lock:
            member = self.members[name]
            pid = child or member.pid
            self._note_death(member.title, pid, "killed")
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def send(self, name: str, number: signal.Signals) -> None:
        """A signal to the process alone, not to its children."""
        with self._lock, suppress(ProcessLookupError):
            os.kill(self.members[name].pid, number)

    def defect(self, member: Member, text: str) -> None:
        """Note what must not happen."""
        self._journal.note("defect", worker=member.title, text=text)

    def end(self, prefix: str) -> dict[str, int]:
        """SIGTERM to the members whose name begins so; gives the codes with which they ended.

        One that does not end, or not well, is noted as a defect; and so is what they leave behind.
        """
        with self._lock:
            members = [member for member in self.members.values() if member.name.startswith(prefix)]
            for member in members:
                member.is_wanted = False
                if member.process is not None:
                    member.process.terminate()
        deadline = time.monotonic() + END
        codes = {member.title: self._code_of(member, deadline) for member in members}
        with self._lock:
            self.bereaved.update((member.title, time.monotonic() + SEARCH) for member in members)
        eventually(lambda: not self.bereaved, timeout=END, what="what ended processes have started ends too")
        return codes

    def _code_of(self, member: Member, deadline: float) -> int:
        assert member.process is not None
        try:
            code = member.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            member.process.kill()
            code = member.process.wait()
        if code != 0:
            self.defect(member, f"told to end, it ended with {code}")
        return code

    def close(self) -> None:
        """Kill what still runs."""
        self._ending.set()
        self._watcher.join()
        eventually(lambda: not _kill_all(processes(self._folder)), what="all processes end")
        for member in self.members.values():
            if member.process is not None:
                member.process.wait()

    def _watch(self) -> None:
        while not self._ending.wait(WATCH):
            with self._lock:
                for member in self.members.values():
                    if member.is_wanted and member.process is not None and member.process.poll() is not None:
                        self._note_death(member.title, member.pid, f"exit {member.process.returncode}")
                        self.bereaved[member.title] = time.monotonic() + self._outlived
                        self._start(member)
                if self.bereaved and time.monotonic() > self._searched + SEARCH:
                    self._search()

    def _search(self) -> None:
        """Look for processes that outlive those that started them."""
        self._searched = time.monotonic()
        left = [process for process in processes(self._folder) if process.title in self.bereaved]
        late = [process for process in left if self.bereaved[process.title] < self._searched]
        for process in late:
            self._journal.note("defect", worker=process.title,
                               text=f"it has ended, and process {process.pid} goes on")  # fmt: skip
            self._note_death(process.title, process.pid, "killed")
        _kill_all(late)
        titles = {process.title for process in left} - {process.title for process in late}
        self.bereaved = {title: until for title, until in self.bereaved.items() if title in titles}

    def _note_death(self, title: str, pid: int, how: str) -> None:
        self._journal.note("died", worker=title, pid=pid, how=how)

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


def _kill_all(found: Sequence[Process]) -> bool:
    """SIGKILL to all of these; gives whether there were any."""
    for process in found:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    return bool(found)
