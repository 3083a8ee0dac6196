"""The reaper itself, with `sleep` in the role of a node."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from brokerjobs.node.reaper import Reaper, leave_running
from brokerjobs.node.waiting import wait_until

OWNER = """
import sys
from pathlib import Path
from brokerjobs.node.reaper import Reaper
folder = Path(sys.argv[1])
reaper = Reaper(remove=folder)
for holder in (sys.argv[2] == "holder", False):
    process = reaper.start(["sleep", "300"], log=folder / "log", cwd=folder, holder=holder)
    print(process.pid, flush=True)
sys.stdin.read()
"""


def ps(column: str, pid: int) -> str:
    done = subprocess.run(
        ["ps", "-o", f"{column}=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def lives(pid: int) -> bool:
    state = ps("stat", pid)
    return bool(state) and not state.startswith("Z")  # a zombie only waits to be noticed


def start_owner(folder: Path, kind: str) -> tuple[subprocess.Popen[str], int, int]:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder), kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    return owner, int(owner.stdout.readline()), int(owner.stdout.readline())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "a folder"
    path.mkdir()
    return path


@pytest.fixture
def reaper() -> Iterator[Reaper]:
    reaper = Reaper()
    yield reaper
    reaper.close()


def test_processes_and_folder_go_when_the_owner_is_killed(folder: Path) -> None:
    owner, first, second = start_owner(folder, "plain")
    with owner:
        assert lives(first)
        assert lives(second)
        owner.kill()
    assert wait_until(lambda: not lives(first) and not lives(second), timeout=10)
    assert wait_until(lambda: not folder.exists(), timeout=10)


def test_a_holder_outlives_the_owner_and_keeps_the_others(folder: Path) -> None:
    owner, holder, other = start_owner(folder, "holder")
    with owner:
        owner.kill()
    try:
        assert not wait_until(lambda: not lives(holder) or not lives(other), timeout=1)
    finally:
        os.kill(holder, signal.SIGKILL)
    assert wait_until(lambda: not lives(other), timeout=10)
    assert wait_until(lambda: not folder.exists(), timeout=10)


def test_closing_kills_what_still_runs(reaper: Reaper, folder: Path) -> None:
    process = reaper.start(["sleep", "300"], log=folder / "log", cwd=folder)
    reaper.close()
    assert process.wait(10) == -signal.SIGKILL


def test_a_forgotten_process_is_not_killed(reaper: Reaper, folder: Path) -> None:
    process = reaper.start(["sleep", "300"], log=folder / "log", cwd=folder)
    # It enters itself before it is `sleep`; only then may it be crossed out.
    assert wait_until(lambda: "sleep" in ps("comm", process.pid), timeout=10)
    reaper.forget(process.pid)
    reaper.close()
    assert process.poll() is None
    process.kill()
    process.wait()


def test_output_goes_to_the_log(reaper: Reaper, folder: Path) -> None:
    log = folder / "log"
    log.write_text("before\n")
    reaper.start(["sh", "-c", "echo out; echo err >&2"], log=log, cwd=folder).wait(10)
    assert sorted(log.read_text().split()) == ["before", "err", "out"]


@pytest.mark.filterwarnings("error")
def test_a_process_that_is_left_is_not_complained_about(folder: Path) -> None:
    process = subprocess.Popen(["sleep", "300"])
    pid = process.pid
    leave_running(process)
    del process
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
