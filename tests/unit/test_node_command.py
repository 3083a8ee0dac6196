import subprocess
from pathlib import Path

import pytest

from brokerjobs.node.command import run
from brokerjobs.node.waiting import wait_until


def test_a_command_gives_its_code_and_output(tmp_path: Path) -> None:
    done = run(["sh", "-c", "pwd; echo $A >&2; exit 3"], timeout=10, env={"A": "b"}, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (3, f"{tmp_path}\n", "b\n")


def test_a_command_that_takes_too_long_is_ended_with_what_it_started(tmp_path: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run(["sh", "-c", f"sleep 300 & echo $! > {tmp_path}/pid; wait"], timeout=0.5)
    child = (tmp_path / "pid").read_text().strip()

    def is_gone() -> bool:
        state = subprocess.run(["ps", "-o", "stat=", "-p", child], capture_output=True, check=False).stdout
        return state.strip() in (b"", b"Z")

    assert wait_until(is_gone, timeout=10)
