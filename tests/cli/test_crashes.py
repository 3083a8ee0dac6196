"""Jobs that kill: their worker at first, then only the process that isolates them; and jobs that ask to be isolated."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests import amqp
from tests.conftest import one_version
from tests.shell import Shell
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(300)

# In the worker the good ones take so long that the bad one is faster.
WORK = """
import ctypes
import sys
import threading
from pathlib import Path

from brokerjobs import Consumer, Retry, current_job

consumer = Consumer("work", retry=Retry(5, delays=[0.125]))


@consumer.job()
def good(number: int) -> None:
    if not sys.argv[0].endswith("child.py"):
        threading.Event().wait(4)
    with Path("notes").open("a") as notes:
        notes.write(f"{number} {current_job().attempt}\\n")


@consumer.job(priority=9)
def bad() -> None:
    ctypes.string_at(0)
"""

HEAVY = """
import ctypes
import os
from pathlib import Path

from brokerjobs import Consumer, Retry

consumer = Consumer("heavy", retry=Retry(max_attempts=1))


@consumer.job(isolate=True, timeout="500ms")
def hang() -> None:
    ctypes.PyDLL(None).sleep(600)


@consumer.job(isolate=True, memory_limit="192 MiB")
def hoard() -> None:
    held = []
    while True:
        held.append(bytes(2**20))


@consumer.job(isolate=True)
def stay() -> None:
    Path("pid").write_text(f"{os.getpid()}\\n")
    ctypes.PyDLL(None).sleep(600)
"""


def test_job_that_kills_its_worker_is_blamed_alone(online: Shell, url: str) -> None:
    """Nine good ones were prefetched with it, each time; on a classic queue (3.10) and a quorum queue (4.3)."""
    online.write("consumers/work.py", WORK)
    assert online.run("topology", "apply").code == 0
    amqp.publish(url, "work.bad", b"", message_id="bad", priority=9)
    for number in range(9):
        amqp.publish(url, "work.good", b'{"number": %d}' % number, message_id=f"good-{number}", priority=4)

    for _ in range(2):
        assert online.start("consume", "work").end().code == -signal.SIGSEGV
    assert online.lines("notes") == []
    worker = online.consume("work")

    eventually(lambda: len(online.lines("notes")) >= 9 and amqp.ready(url, "work.dead") == 1)
    assert sorted(online.lines("notes")) == [f"{number} 1" for number in range(9)]
    (dead,) = amqp.peek(url, "work.dead")
    assert dead.properties.message_id == "bad"
    assert (dead.headers["brokerjobs-reason"], dead.headers["brokerjobs-crashes"]) == ("crashed", 3)
    assert dead.headers["brokerjobs-error"] == "the process of work.bad died: killed by SIGSEGV"
    assert "in bad" in dead.headers["brokerjobs-traceback"]
    assert [line["exit"] for line in worker.events("job crashed")] == ["killed by SIGSEGV"] * 3
    worker.signal(signal.SIGTERM)
    assert worker.end().code == 0
    assert amqp.ready(url, "work") == 0


@one_version
def test_isolated_jobs_are_killed_and_bounded_and_never_outlive_the_worker(online: Shell, url: str) -> None:
    online.write("consumers/heavy.py", HEAVY)
    worker = online.consume("heavy")
    for job in "heavy.hang", "heavy.hoard", "heavy.stay":
        amqp.publish(url, job, b"", priority=4)

    eventually(lambda: amqp.ready(url, "heavy.dead") == 2 and online.lines("pid") != [])
    dead = [found.headers for found in amqp.peek(url, "heavy.dead")]
    errors = sorted((headers["brokerjobs-reason"], headers["brokerjobs-error"]) for headers in dead)
    assert errors == [
        ("crashed", "the process of heavy.hoard died: out of memory, its limit is 192 MiB"),
        ("exhausted", "heavy.hang was killed: outran its timeout of 500ms"),
    ]
    pid = Path("/proc") / online.lines("pid")[0]
    assert pid.exists()

    worker.signal(signal.SIGKILL)

    eventually(lambda: not pid.exists() or " Z " in (pid / "stat").read_text())
