"""What a child does when its parent speaks, is silent, or is gone; the processes themselves are in tests/cli."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from brokerjobs.supervisor import parent as parent_module
from brokerjobs.supervisor.parent import VARIABLE, Parent, attach, environment
from brokerjobs.supervisor.report import DRAIN, Report

PATIENCE = 10.0  # seconds
AT_ONCE = 0.01


class Family:
    """A parent's end of the socket, a child's `Parent`, and what the child was made to do."""

    def __init__(self, *, reports: bool = True) -> None:
        self.ours, theirs = socket.socketpair()
        self.ours.settimeout(PATIENCE)
        self.did: SimpleQueue[str] = SimpleQueue()
        self.parent = Parent(theirs, wants_reports=reports, leave=self.leave)
        self.finished = 0

    def leave(self, code: int) -> None:
        self.did.put(f"left with {code}")

    def attend(self) -> None:
        self.parent.attend(lambda: self.did.put("drain"), AT_ONCE, self.report)

    def end(self) -> None:
        """Close the parent's end, and see the listening thread out: it is named like those of publishers."""
        self.ours.close()
        for thread in threading.enumerate():
            if thread.name == "brokerjobs-parent":
                thread.join(PATIENCE)
                assert not thread.is_alive()

    def report(self) -> Report:
        self.finished += 1
        return Report(finished=self.finished)

    def next(self) -> str:
        return self.did.get(timeout=PATIENCE)

    def lines(self, count: int) -> list[Report]:
        with self.ours.makefile("rb") as file:
            return [Report.read(file.readline()) for _ in range(count)]


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> Iterator[Family]:
    monkeypatch.setattr(parent_module, "INTERVAL", 0.01)
    family = Family()
    yield family
    family.end()


def test_the_word_drain_drains(family: Family) -> None:
    family.attend()
    for part in DRAIN[:3], DRAIN[3:]:
        family.ours.send(part)
    assert family.next() == "drain"
    family.ours.send(DRAIN)  # harmless: it is not a second signal
    assert family.next() == "drain"


def test_end_of_the_parent_drains_and_then_ends_what_has_not_ended(family: Family) -> None:
    family.attend()
    family.ours.close()
    assert family.next() == "drain"
    assert family.next() == "left with 1"


@pytest.mark.parametrize("gone", [True, False], ids=["gone", "drain"])
def test_before_there_is_anything_to_drain_it_leaves_at_once(family: Family, *, gone: bool) -> None:
    if gone:
        family.ours.close()
    else:
        family.ours.send(DRAIN)
    assert family.next() == "left with 0"


def test_reports_come_by_themselves_and_when_asked_for(family: Family) -> None:
    family.attend()
    assert [report.finished for report in family.lines(3)] == [1, 2, 3]
    family.parent.tell()
    assert family.lines(1)[0].finished >= 4


def test_parent_that_does_not_read_holds_nobody_up_and_hears_all_lines_whole(family: Family) -> None:
    sent: list[int] = []

    def large() -> Report:
        sent.append(len(sent) + 1)
        return Report(finished=len(sent), metrics=[("x" * 100_000, "counter", "", "sum", [])])

    family.parent.attend(lambda: None, AT_ONCE, large)

    def tell() -> None:
        for _ in range(20):
            family.parent.tell()

    telling = threading.Thread(target=tell)
    telling.start()
    telling.join(PATIENCE)
    assert not telling.is_alive()
    reports = family.lines(3)
    assert [report.finished for report in reports] == [1, 2, 3]


def test_parent_that_does_not_want_reports_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent_module, "INTERVAL", 0.01)
    family = Family(reports=False)
    family.attend()
    family.parent.tell()
    family.ours.settimeout(0.1)
    with pytest.raises(TimeoutError):
        family.ours.recv(1)
    family.end()


# -- finding the parent


@pytest.mark.parametrize("value", [None, "", "nonsense", "999:reports", "1:reports"])
def test_process_without_a_parent_has_none(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is None:
        monkeypatch.delenv(VARIABLE, raising=False)
    else:
        monkeypatch.setenv(VARIABLE, value)
    assert attach() is None
    assert VARIABLE not in os.environ


CHILD = f"""
import os, subprocess, sys
from brokerjobs.supervisor.parent import attach
parent = attach()
seen = "import os; print(os.environ.get({VARIABLE!r}), os.path.exists('/dev/fd/' + os.environ['LINK']))"
print(parent.wants_reports, flush=True)
subprocess.run([sys.executable, "-c", seen], close_fds=False)
"""


def test_link_is_not_passed_on_to_what_a_job_starts() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        number = theirs.fileno()
        child = subprocess.run(
            [sys.executable, "-c", CHILD],
            pass_fds=[number],
            env={**os.environ, **environment(number, reports=True), "LINK": str(number)},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    assert child.stdout.split() == ["True", "None", "False"], child.stderr
