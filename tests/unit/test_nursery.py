"""Workers that are forked: they are children of the one who wished for them, and live and end like any other."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from brokerjobs.supervisor import nursery as nursery_module
from brokerjobs.supervisor.nursery import Forked, Nursery
from tests.shell import nurseries
from tests.waiting import eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers are not forked")

PROGRAM = """
import os, sys, threading
from brokerjobs.supervisor import nursery, parent

def load():
    global loaded_by
    loaded_by = os.getpid()
    {more}

nursery.serve(load)
attached = os.environ[parent.VARIABLE]
link = int(attached.partition(":")[0])
while said := os.read(link, 16):
    if said == b"who":
        about = [os.getpid(), os.getppid(), os.getpgid(0), loaded_by, threading.active_count(), attached]
        os.write(link, " ".join(map(str, about)).encode())
    else:
        sys.exit(int(said))
"""


def program(more: str = "pass") -> list[str]:
    return [sys.executable, "-c", PROGRAM.format(more=more)]


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    made = Nursery(program())
    yield made
    made.close()
    eventually(lambda: nurseries(os.getpid()) == [])


def started(nursery: Nursery) -> tuple[Forked, socket.socket]:
    found = nursery.start()
    assert found is not None
    found[1].settimeout(30)
    return found


def test_workers_are_ours_and_know_their_parent_and_share_what_was_loaded(nursery: Nursery) -> None:
    loaded_by = set()
    for code in b"3", b"0":
        worker, link = started(nursery)
        with link:
            link.send(b"who")
            pid, parent, group, loader, threads, attached = link.recv(100).decode().split()
            assert [int(pid), int(parent), int(group)] == [worker.pid, os.getpid(), worker.pid]
            assert (threads, attached.partition(":")[2]) == ("1", "reports")
            assert Path(f"/proc/{pid}/comm").read_text() != "nursery\n"
            loaded_by.add(int(loader))
            assert worker.returncode is None
            link.send(code)
            assert worker.wait() == worker.returncode == int(code)
    assert loaded_by == set(nurseries(os.getpid())), "both come from one"


def test_a_worker_can_be_killed_and_is_not_mistaken_for_another_afterwards(
    nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, link = started(nursery)
    with link:
        worker.send_signal(signal.SIGKILL)
        assert worker.wait() == -signal.SIGKILL
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("its number may be another's by now"))
    worker.send_signal(signal.SIGKILL)


def test_a_worker_sees_the_end_of_who_wished_for_it(nursery: Nursery) -> None:
    worker, link = started(nursery)
    link.close()
    assert worker.wait() == 0


def test_an_ended_nursery_is_followed_by_another(nursery: Nursery) -> None:
    first, link = started(nursery)
    with link:
        eventually(lambda: len(nurseries(os.getpid())) == 1)  # a worker has its own name a moment later
        [pid] = nurseries(os.getpid())
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: nurseries(os.getpid()) == [])
        second, other_link = started(nursery)
        with other_link:
            assert first.returncode is None, "nothing depends on it"
            assert nurseries(os.getpid()) != [pid]
    assert (first.wait(), second.wait()) == (0, 0)


@pytest.mark.parametrize("how", ["it cannot be started", "it ends at once", "it has threads"])
def test_where_none_can_be_had_it_is_said_once(how: str) -> None:
    command = {
        "it cannot be started": ["/nowhere"],
        "it ends at once": ["false"],
        "it has threads": program("threading.Thread(target=threading.Event().wait, daemon=True).start()"),
    }[how]
    nursery = Nursery(command)
    with capture_logs() as lines:
        assert [nursery.start(), nursery.start()] == [None, None]
    assert [line["event"] for line in lines] == ["workers are not forked"]
    eventually(lambda: nurseries(os.getpid()) == [])


def test_a_worker_that_would_be_a_stranger_s_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel does not give it to us, nobody would know how it ended."""
    monkeypatch.setattr(nursery_module, "_adopting", nullcontext)
    nursery = Nursery(program())
    with capture_logs() as lines:
        assert nursery.start() is None
    assert [line["event"] for line in lines] == ["workers are not forked"]
    nursery.close()
    eventually(lambda: nurseries(os.getpid()) == [])


def test_an_adopter_is_one_only_for_the_moment() -> None:
    """Or it would be left with the orphans of its workers, and never ask how those ended."""
    orphan = "import os, subprocess, sys; print(subprocess.Popen(['sleep', '0.2']).pid)"
    with nursery_module._adopting():
        pass
    printed = subprocess.run([sys.executable, "-c", orphan], check=True, capture_output=True, text=True)
    with pytest.raises(ChildProcessError):
        os.waitpid(int(printed.stdout), os.WNOHANG)
