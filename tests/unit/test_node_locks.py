import subprocess
import sys
from pathlib import Path

import pytest

from brokerjobs.node.locks import is_locked, locked
from brokerjobs.node.waiting import wait_until


def test_a_lock_lasts_as_long_as_its_block(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    with locked(path, timeout=0):
        assert is_locked(path)
    assert not is_locked(path)


def test_a_second_holder_waits_and_is_told_so(tmp_path: Path) -> None:
    told: list[str] = []
    second = locked(tmp_path / "lock", timeout=0, on_wait=lambda: told.append("waiting"))
    with locked(tmp_path / "lock", timeout=0), pytest.raises(TimeoutError, match="still locked"), second:
        pytest.fail("two hold the lock")
    assert told == ["waiting"]
    with locked(tmp_path / "lock", timeout=0, on_wait=lambda: told.append("again")):
        assert told == ["waiting"]


def test_a_child_that_inherits_the_lock_keeps_it_until_it_dies(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path, timeout=0) as fd:
        child = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=[fd]
        )
    with child:
        assert is_locked(path)
        child.kill()
        assert wait_until(lambda: not is_locked(path), timeout=10)


def test_waiting_ends_at_its_deadline() -> None:
    assert not wait_until(lambda: False, timeout=0)
    assert wait_until(lambda: True, timeout=0)
