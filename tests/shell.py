"""The command `brokerjobs` as a person at a shell has it: real processes in a folder with a consumers package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Any

from tests.forked import PIPE, mother
from tests.waiting import eventually

COMMAND = (sys.executable, "-m", "brokerjobs")
PATIENCE = 90.0  # seconds; a machine under load starts a process slowly


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.out, self.err
        return json.loads(self.out)

    @property
    def complaint(self) -> str:
        """The last line of standard error, which says what was wrong."""
        return self.err.splitlines()[-1]


class Running:
    """A command that goes on until it is told to stop; what it says lies in files, so no pipe can fill up."""

    def __init__(self, arguments: tuple[str, ...], folder: Path, env: Mapping[str, str], number: int) -> None:
        self._out, self._err = folder / f"{number}.out", folder / f"{number}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [*COMMAND, *arguments],
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,  # a process group of its own, as a shell gives to each command
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def err(self) -> str:
        return self._err.read_text()

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def log(self) -> list[dict[str, Any]]:
        """Its log lines so far, but not one that is being written."""
        whole = self.err.rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def events(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.log if line["event"] == event]

    def until(self, event: str, times: int = 1, *, although_ended: bool = False) -> dict[str, Any]:
        """Wait for a log line, and give it; `although_ended` where a child says it."""
        eventually(
            lambda: (
                len(self.events(event)) >= times or (self.process.poll() is not None and not although_ended)
            ),
            timeout=PATIENCE,
            what=f"{event!r} in the log",
        )
        assert len(self.events(event)) >= times, f"ended without saying {event!r}: {self.err}"
        return self.events(event)[times - 1]

    def signal(self, number: Signals) -> None:
        self.process.send_signal(number)

    def signal_group(self, number: Signals) -> None:
        """What Ctrl-C does on a terminal: every process of the command gets it."""
        os.killpg(self.pid, number)

    def end(self) -> Result:
        """Wait for its end."""
        code = self.process.wait(timeout=PATIENCE)
        return Result(code, self.out, self.err)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, Signals.SIGKILL)
        self.process.wait()


def children(pid: int) -> list[int]:
    """The processes that this one has started; without the one that they are forked from, which comes and goes."""
    return [child for child in _all_children(pid) if not _is_nursery(child)]


def nurseries(pid: int) -> list[int]:
    """Those that children of this process are forked from."""
    return [child for child in _all_children(pid) if _is_nursery(child)]


def _all_children(pid: int) -> list[int]:
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has just ended
            found += map(int, (thread / "children").read_text().split())
    return found


def _is_nursery(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text() == "nursery\n"
    except (FileNotFoundError, ProcessLookupError):
        return False


def is_gone(pid: int) -> bool:
    """Whether a process has ended; nobody may have asked for its exit code yet."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return status.rpartition(")")[2].split()[0] == "Z"


def _needs_python(arguments: tuple[str, ...], env: Mapping[str, str]) -> bool:
    """Whether a command must be started as such: it leaves processes behind, or Python itself shall be another."""
    says_how = any(
        env.get(name) != os.environ.get(name)
        for name in {*env, *os.environ}
        if name.startswith(("PYTHON", "LC_", "LANG")) and name != "PYTHONUNBUFFERED"
    )
    return says_how or arguments[:1] == ("broker",)


class Shell:
    """A folder to run commands in.

    Args:
        folder: holds `consumers/`, and is where commands run.
        env: their environment.
    """

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.folder = folder
        self.env = dict(env)
        self._started: list[Running] = []
        (folder / "consumers").mkdir()
        (folder / "consumers" / "__init__.py").touch()

    def write(self, name: str, text: str) -> Path:
        """Write a file; gives its path."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def lines(self, name: str) -> list[str]:
        """The lines of a file that jobs write; none before there is one."""
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def run(self, *arguments: str, stdin: str | bytes = b"", **env: str) -> Result:
        """Run a command to its end; forked where that is the same."""
        given = stdin.encode() if isinstance(stdin, str) else stdin
        environment = {**self.env, **env}
        if _needs_python(arguments, environment) or len(given) > PIPE:
            return self.run_python(*arguments, stdin=stdin, **env)
        code, out, err = mother().run(arguments, self.folder, environment, given, PATIENCE)
        return Result(code, out.decode(), err.decode())

    def run_python(self, *arguments: str, stdin: str | bytes = b"", **env: str) -> Result:
        """Run a command to its end in a Python of its own, as people do."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env={**self.env, **env},
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    def start(self, *arguments: str, **env: str) -> Running:
        """Start a command that goes on."""
        running = Running(arguments, self.folder, {**self.env, **env}, len(self._started))
        self._started.append(running)
        return running

    def consume(self, *arguments: str, **env: str) -> Running:
        """Start a worker, and wait until it consumes."""
        running = self.start("consume", *arguments, **env)
        running.until("consuming")
        return running

    def close(self) -> None:
        """End what runs, and print what was said: it is shown where a test has failed."""
        for running in self._started:
            running.kill()
            print(running.process.args, running.err, sep="\n")
