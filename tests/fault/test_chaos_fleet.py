"""The fleet of the chaos runs: what outlives its parent does not go unseen."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.chaos.fleet import Fleet, Member
from tests.chaos.ledger import Ledger
from tests.chaos.processes import processes
from tests.waiting import eventually

CHILD = "import signal; signal.pause()"
PARENT = (
    f"import signal, subprocess, sys; subprocess.Popen([sys.executable, '-c', {CHILD!r}]); signal.pause()"
)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with closing(Fleet(tmp_path, os.environ, outlived=0.5)) as fleet:
        yield fleet


@pytest.fixture
def member(fleet: Fleet) -> Member:
    member = Member("worker-z", ("-c", PARENT), children=1)
    fleet.add(member)
    eventually(lambda: len(fleet.children(member)) == 1, what="it has its child")
    return member


def told(folder: Path, event: str) -> list[tuple[str, int, str]]:
    ledger = Ledger(folder)
    ledger.read()
    notices = ledger.history().notices
    return [(notice.worker, notice.pid, notice.text) for notice in notices if notice.event == event]


def test_a_child_that_outlives_its_killed_parent_is_a_defect(
    fleet: Fleet, member: Member, tmp_path: Path
) -> None:
    parent, (child,) = member.pid, fleet.children(member)
    fleet.kill(member.name)
    eventually(lambda: bool(told(tmp_path, "defect")), what="the child that goes on is seen")
    assert told(tmp_path, "defect") == [("worker-z.1", 0, f"it has ended, and process {child} goes on")]
    assert ("worker-z.1", parent, "") in told(tmp_path, "died")
    eventually(lambda: child not in {process.pid for process in processes(tmp_path)}, what="it is ended")
    assert fleet.members["worker-z"].title == "worker-z.2"


def test_a_child_that_ends_with_its_killed_parent_is_none(
    fleet: Fleet, member: Member, tmp_path: Path
) -> None:
    (child,) = fleet.children(member)
    fleet.kill(member.name)
    os.kill(child, signal.SIGKILL)
    eventually(lambda: member.life == 2 and not fleet.bereaved, what="the fleet has looked")
    assert told(tmp_path, "defect") == []


def test_what_a_member_leaves_behind_at_the_end_is_a_defect(
    fleet: Fleet, member: Member, tmp_path: Path
) -> None:
    (child,) = fleet.children(member)
    assert fleet.end("worker") == {"worker-z.1": -signal.SIGTERM}
    assert [text for _, _, text in told(tmp_path, "defect")] == [
        "told to end, it ended with -15", f"it has ended, and process {child} goes on",
    ]  # fmt: skip
