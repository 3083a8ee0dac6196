"""`brokerjobs consume --processes`: real children, real signals. RabbitMQ's version does not matter, so one will do."""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.error
import urllib.request
from collections import Counter

import pytest

from tests import amqp
from tests.conftest import one_version
from tests.shell import PATIENCE, Running, Shell, children, is_gone
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(300)

# Each job notes the process that it runs in. `hold` runs until somebody opens the other end of the pipe `gate`.
EMAILS = """
import os
import time
from pathlib import Path

from brokerjobs import Consumer

consumer = Consumer("emails")


def note(text):
    with Path("notes").open("a") as notes:
        notes.write(f"{text} {os.getpid()}\\n")


@consumer.on_shutdown
def end():
    note("shut-down")


@consumer.job()
def write(text: str) -> None:
    note(text)


@consumer.job()
def hold(name: str) -> None:
    note(f"{name} began")
    Path("gate").read_bytes()
    note(f"{name} finished")


@consumer.job()
async def block() -> None:
    note("block began")
    time.sleep(3600)
"""


@pytest.fixture
def emails(online: Shell) -> Shell:
    online.write("consumers/emails.py", EMAILS)
    os.mkfifo(online.folder / "gate")
    return online


def supervised(shell: Shell, *arguments: str, processes: int = 2) -> Running:
    """Start a parent, and wait until its children consume."""
    parent = shell.start("consume", "emails", "-p", str(processes), *arguments)
    parent.until("child consuming", times=processes)
    return parent


def publish(shell: Shell, job: str, **arguments: object) -> None:
    amqp.publish(shell.env["BROKERJOBS_URL"], job, json.dumps(arguments).encode())


def noted(shell: Shell, text: str, times: int = 1) -> int:
    """Wait until a job has noted this so often; gives the process of the last."""
    eventually(lambda: len(pids(shell, text)) >= times, timeout=PATIENCE, what=f"{text!r} in the notes")
    return pids(shell, text)[-1]


def pids(shell: Shell, text: str) -> list[int]:
    found = [line.rpartition(" ") for line in shell.lines("notes")]
    return [int(pid) for said, _, pid in found if said == text]


def open_gate(shell: Shell) -> None:
    (shell.folder / "gate").write_bytes(b"")


def all_gone(processes: list[int]) -> None:
    eventually(lambda: all(is_gone(pid) for pid in processes), timeout=PATIENCE, what="no child is left")


def answer(parent: Running, path: str) -> str:
    """What it says at its port."""
    address = parent.until("serving metrics")["address"].replace("/metrics", f"/{path}")
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return str(error.read().decode())


def health(parent: Running) -> dict[int, str]:
    """The children that consume, by its account, and what."""
    return {
        child["pid"]: " ".join(queue["queue"] for queue in child["queues"] if queue["consuming"])
        for child in json.loads(answer(parent, "status"))["children"]
    }


def sums(parent: Running) -> dict[str, float]:
    lines = answer(parent, "metrics").splitlines()
    return {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
    }


FINISHED = 'brokerjobs_jobs_finished_total{job_name="emails.write",outcome="succeeded",queue="emails"}'
KILLED = 'brokerjobs_process_restarts_total{reason="signal"}'
SLOTS = 'brokerjobs_worker_slots{queue="emails"}'


@one_version
def test_killed_child_is_replaced_its_job_runs_again_and_what_it_counted_stays(emails: Shell) -> None:
    parent = supervised(emails, "-c", "3", "--metrics-port", "0")
    assert sorted(line["pid"] for line in parent.events("child started")) == sorted(children(parent.pid))
    publish(emails, "emails.hold", name="first")
    victim = noted(emails, "first began")
    for number in range(20):
        publish(emails, "emails.write", text=str(number))
    eventually(lambda: sums(parent)[FINISHED] == 20, timeout=PATIENCE)
    assert sums(parent)[SLOTS] == 6
    eventually(lambda: answer(parent, "readyz") == "ready\n", timeout=PATIENCE)
    assert health(parent) == dict.fromkeys(children(parent.pid), "emails")
    assert victim in {pid for number in range(20) for pid in pids(emails, str(number))}

    os.kill(victim, signal.SIGKILL)
    ended = parent.until("child ended")
    assert (ended["pid"], ended["signal"], ended["running"]) == (victim, "SIGKILL", 1)
    assert sums(parent)[FINISHED] == 20
    assert noted(emails, "first began", times=2) != victim
    parent.until("child consuming", times=3)
    eventually(lambda: sums(parent)[SLOTS] == 6, timeout=PATIENCE)
    assert (sums(parent)[FINISHED], sums(parent)[KILLED]) == (20, 1)
    eventually(lambda: answer(parent, "readyz") == "ready\n", timeout=PATIENCE)
    assert health(parent) == dict.fromkeys(children(parent.pid), "emails")
    assert victim not in health(parent)

    open_gate(emails)
    noted(emails, "first finished")
    parent.signal(signal.SIGTERM)
    assert parent.end().code == 0


@one_version
def test_hangup_under_load_replaces_all_and_each_job_runs_once(emails: Shell, url: str) -> None:
    parent = supervised(emails, "-c", "2")
    old = children(parent.pid)
    parent.signal(signal.SIGHUP)
    sent = 0
    while not parent.events("rolling restart done"):
        assert parent.process.poll() is None
        publish(emails, "emails.write", text=f"job {sent}")
        sent += 1
    noted(emails, f"job {sent - 1}")
    eventually(lambda: len(emails.lines("notes")) >= sent + 2, timeout=PATIENCE)
    runs = Counter(line.rpartition(" ")[0] for line in emails.lines("notes"))
    assert runs == Counter({"shut-down": 2, **{f"job {number}": 1 for number in range(sent)}})
    all_gone(old)
    assert [line["reason"] for line in parent.events("child replaced")] == ["rolling", "rolling"]

    # Code that cannot be imported ends nobody.
    new = children(parent.pid)
    emails.write("consumers/emails.py", "def broken(:\n")
    parent.signal(signal.SIGHUP)
    parent.until("rolling restart given up")
    assert sorted(children(parent.pid)) == sorted(new)
    publish(emails, "emails.write", text="still here")
    noted(emails, "still here")
    parent.signal(signal.SIGTERM)
    assert parent.end().code == 0
    assert amqp.ready(url, "emails") == 0


@pytest.mark.parametrize("to_all", [True, False], ids=["all of them are told", "the parent is told"])
@one_version
def test_first_signal_lets_all_children_finish(emails: Shell, *, to_all: bool) -> None:
    parent = supervised(emails, "-c", "1")
    for name in "first", "second":
        publish(emails, "emails.hold", name=name)
    started = {noted(emails, f"{name} began") for name in ("first", "second")}
    assert started == set(children(parent.pid))
    if to_all:  # as systemd does
        for child in started:
            os.kill(child, signal.SIGTERM)
        parent.until("draining", times=2)
        parent.signal(signal.SIGTERM)
    else:  # as a terminal does
        parent.signal_group(signal.SIGINT)
        parent.until("draining", times=2)
    for name in "first", "second":
        assert f"{name} finished" not in str(emails.lines("notes"))
    open_gate(emails)
    assert parent.end().code == 0
    assert [pids(emails, f"{name} finished") for name in ("first", "second")] == [
        pids(emails, f"{name} began") for name in ("first", "second")
    ]
    assert all(is_gone(child) for child in started)


@one_version
def test_second_signal_ends_all_at_once(emails: Shell, url: str) -> None:
    parent = supervised(emails, "--drain-timeout", "1h")
    publish(emails, "emails.hold", name="first")
    noted(emails, "first began")
    started = children(parent.pid)
    parent.signal(signal.SIGTERM)
    parent.until("draining")
    parent.signal(signal.SIGTERM)
    assert parent.end().code == 130
    assert all(is_gone(child) for child in started)
    assert parent.log[-1]["event"] == "ended at once"
    eventually(lambda: amqp.ready(url, "emails") == 1, timeout=PATIENCE)


@pytest.mark.parametrize("arguments", [("-p", "2"), ("--reload",)], ids=["processes", "reload"])
@one_version
def test_children_of_a_killed_parent_finish_their_jobs_and_end(
    emails: Shell, url: str, arguments: tuple[str, ...]
) -> None:
    parent = emails.start("consume", "emails", *arguments)
    parent.until("consuming", times=2 if "-p" in arguments else 1)
    publish(emails, "emails.hold", name="first")
    noted(emails, "first began")
    started = children(parent.pid)
    parent.signal(signal.SIGKILL)
    parent.until("parent is gone", times=len(started), although_ended=True)
    publish(emails, "emails.write", text="for somebody else")
    open_gate(emails)
    noted(emails, "first finished")
    all_gone(started)
    noted(emails, "shut-down", times=len(started))
    assert amqp.ready(url, "emails") == 1


@one_version
def test_blocked_event_loop_holds_up_no_end(emails: Shell, url: str) -> None:
    """Neither of a worker alone, nor of one under a parent, nor of one that nobody waits for."""
    options = ("-c", "1", "--drain-timeout", "100ms")
    alone, impatient = (emails.consume("emails", *options) for _ in range(2))
    parent = supervised(emails, *options, processes=2)
    for _ in range(4):
        publish(emails, "emails.block")
    noted(emails, "block began", times=4)
    for worker in alone, parent, impatient:
        worker.signal(signal.SIGTERM)
    impatient.signal(signal.SIGINT)
    assert impatient.end().code == 130
    assert (alone.end().code, alone.log[-1]["event"]) == (75, "worker stuck")
    assert parent.end().code == 75
    assert len(parent.events("child killed")) == 2
    eventually(lambda: amqp.ready(url, "emails") == 4, timeout=PATIENCE)


@one_version
def test_process_is_recycled_after_its_jobs_and_burst_ends_with_the_last(emails: Shell) -> None:
    parent = emails.start("consume", "emails", "--recycle-jobs", "3")
    (old,) = [parent.until("child consuming")["pid"]]
    for number in range(3):
        publish(emails, "emails.write", text=str(number))
    replaced = parent.until("child replaced")
    assert (replaced["pid"], replaced["reason"], replaced["finished"]) == (old, "jobs", 3)
    all_gone([old])
    publish(emails, "emails.write", text="after")
    assert noted(emails, "after") == replaced["by"]
    parent.signal(signal.SIGTERM)
    assert parent.end().code == 0

    for number in range(30):
        publish(emails, "emails.write", text=f"burst {number}")
    ended = emails.start("consume", "emails", "-p", "2", "-c", "1", "--burst").end()
    assert ended.code == 0, ended.err
    assert [len(pids(emails, f"burst {number}")) for number in range(30)] == [1] * 30


def test_configuration_error_ends_the_parent_at_once_with_one_complaint(offline: Shell) -> None:
    offline.write("consumers/emails.py", "def broken(:\n")
    ended = offline.run("consume", "emails", "-p", "3")
    assert ended.code == 78
    complaints = [line for line in ended.err.splitlines() if line.startswith("brokerjobs: ")]
    assert len(complaints) == 1
    assert "cannot import consumers.emails" in complaints[0]
    assert ended.err.count('"child started"') == 1


def test_reload_runs_one_process(offline: Shell) -> None:
    ended = offline.run("consume", "emails", "-p", "2", "--reload")
    assert ended.code == 2
    assert "--reload runs one process" in ended.complaint


def test_memory_limit_that_is_none_is_refused(offline: Shell) -> None:
    ended = offline.run("consume", "emails", "--recycle-memory", "much")
    assert ended.code == 78
    assert "recycle_memory (--recycle-memory)" in ended.complaint


def test_taken_metrics_port_starts_no_child(offline: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = offline.run("consume", "emails", "-p", "2", "--metrics-port", port)
    assert ended.code == 78
    assert "child started" not in ended.err
