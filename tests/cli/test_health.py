"""What a real worker says of its health while things happen to it, on its port and to systemd."""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

from brokerjobs.health import STILL
from brokerjobs.metrics import Metrics
from brokerjobs.node.private import PrivateNode
from brokerjobs.serving import Server
from brokerjobs.vitals import BEAT, Vitals
from tests.conftest import one_version
from tests.shell import PATIENCE, Running, Shell
from tests.unit.test_health import WELL
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(300)

# `fail` and `hold` occupy a thread, `block` the event loop, until somebody opens the other end of a pipe.
EMAILS = """
from pathlib import Path

from brokerjobs import Consumer, Retry

consumer = Consumer("emails", retry=Retry(delays=[1.0]))


def wait(gate):
    Path(f"{gate} began").touch()
    Path(gate).read_bytes()


@consumer.job()
def hold() -> None:
    wait("gate")


@consumer.job()
def fail() -> None:
    wait("gate")
    raise OSError("mail server is away")


@consumer.job()
async def block() -> None:
    wait("lock")
"""


@pytest.fixture
def shell(online: Shell) -> Shell:
    online.write("consumers/emails.py", EMAILS)
    for name in "gate", "lock":
        os.mkfifo(online.folder / name)
    return online


class Watched:
    """A worker, and whoever asks it."""

    def __init__(self, shell: Shell, worker: Running) -> None:
        self.shell = shell
        self.worker = worker
        self.address = str(worker.until("serving metrics")["address"]).removesuffix("/metrics")

    def ask(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"{self.address}{path}", timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    @property
    def stands_still(self) -> float:
        return float(json.loads(self.ask("/status")[1])["stands_still"])

    def until(self, path: str, code: int, words: str) -> None:
        """Wait for this answer."""
        said: tuple[int, str] = (0, "")

        def is_so() -> bool:
            nonlocal said
            said = self.ask(path)
            return said[0] == code and words in said[1]

        try:
            eventually(is_so, timeout=PATIENCE)
        except AssertionError:
            raise AssertionError(f"{path} says {said}, not {code} {words!r}: {self.worker.err}") from None

    def health(self, *options: str) -> tuple[int, str]:
        """What the command says."""
        done = self.shell.run("health", "--port", self.address.rpartition(":")[2], *options)
        assert done.err == ""
        return done.code, done.out

    def publish(self, job: str, gate: str) -> None:
        """Publish a job, and wait until it runs."""
        done = self.shell.run("publish", job)
        assert done.code == 0, done.err
        eventually((self.shell.folder / f"{gate} began").exists, timeout=PATIENCE)

    def open(self, gate: str) -> None:
        """Let the job that waits there go on."""
        (self.shell.folder / f"{gate} began").unlink()
        (self.shell.folder / gate).write_bytes(b"")


@one_version
def test_ready_means_that_it_takes_jobs_and_live_asks_no_broker(
    shell: Shell, own_node: PrivateNode, own_url: str
) -> None:
    shell.env |= {
        "BROKERJOBS_URL": own_url,
        "BROKERJOBS_HEARTBEAT": "2",
        "BROKERJOBS_CONNECT_TIMEOUT": "1",
        "BROKERJOBS_PUBLISH_TIMEOUT": "30s",
    }
    watched = Watched(shell, shell.start("consume", "emails", "--metrics-port", "0"))
    watched.until("/readyz", 200, "ready")
    (queue,) = json.loads(watched.ask("/status")[1])["queues"]
    assert queue == {"queue": "emails", "consuming": True, "running": 0, "slots": 10, "paused": {}}
    assert watched.health() == (0, "ready\n")

    assert shell.run("pause", "emails", "--why", "gateway maintenance").code == 0
    watched.until("/readyz", 200, "queue emails is paused by operator: gateway maintenance")
    assert shell.run("resume", "emails").code == 0
    watched.until("/readyz", 200, "ready")

    watched.publish("emails.fail", "gate")
    own_node.ctl("set_vm_memory_high_watermark", "absolute", "1")
    watched.open("gate")  # its retry is the first that it publishes
    watched.until("/readyz", 503, "blocks publishers: a memory or disk alarm")
    assert watched.ask("/livez") == (200, "live\n")
    own_node.ctl("set_vm_memory_high_watermark", "0.6")
    watched.until("/readyz", 200, "ready")

    own_node.pause()
    watched.until("/readyz", 503, f"not connected to RabbitMQ at 127.0.0.1:{own_node.ports.amqp} ")
    assert watched.ask("/livez") == (200, "live\n")
    code, said = watched.health("--json")
    assert (code, json.loads(said)["live"], json.loads(said)["broker"]["connected"]) == (1, True, False)
    assert watched.health("--live") == (0, "live\n")
    own_node.resume()
    watched.until("/readyz", 200, "ready")

    watched.worker.kill()
    done = shell.run("health", "--port", watched.address.rpartition(":")[2])
    assert (done.code, done.out) == (69, "")
    assert "no worker answers at 127.0.0.1:" in done.complaint


def test_verb_says_that_an_event_loop_stands_still(offline: Shell) -> None:
    now = 1000.0
    vitals = Vitals(lambda: WELL, "1.2.3", lambda: now)
    with closing(Server("127.0.0.1", 0, Metrics().registry, vitals)) as server:
        for question in "--live", "--ready":
            now = 1000.0 + STILL
            port = server.address.rpartition(":")[2]
            assert offline.run("health", question, "--port", port).code == 0
            now += 1
            done = offline.run("health", question, "--port", port)
            assert (done.code, "for 11 s: a job blocks it" in done.out) == (1, True)


@one_version
def test_blocked_loop_is_told_and_not_fed_and_a_drain_is_live(shell: Shell, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE)

        def hear(line: str) -> None:
            while line not in systemd.recv(4096).decode().splitlines():
                pass

        def heard() -> list[str]:
            """What nobody has heard yet."""
            systemd.setblocking(False)
            lines: list[str] = []
            try:
                while True:
                    lines += systemd.recv(4096).decode().splitlines()
            except BlockingIOError:
                return lines
            finally:
                systemd.settimeout(PATIENCE)

        worker = shell.start(
            "consume", "emails", "--metrics-port", "0",
            NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="1000000",
        )  # fmt: skip
        watched = Watched(shell, worker)
        hear("READY=1")
        hear("WATCHDOG=1")
        assert watched.ask("/readyz")[0] == 200

        watched.publish("emails.block", "lock")
        eventually(lambda: watched.stands_still > BEAT, timeout=PATIENCE)
        heard()
        before = watched.stands_still
        eventually(lambda: watched.stands_still > before + 2 * BEAT, timeout=PATIENCE)
        assert "brokerjobs_worker_slots" in watched.ask("/metrics")[1]
        assert heard() == []
        watched.open("lock")
        hear("WATCHDOG=1")
        eventually(lambda: watched.stands_still <= BEAT, timeout=PATIENCE)

        watched.publish("emails.hold", "gate")
        worker.signal(signal.SIGTERM)
        hear("STOPPING=1")
        assert watched.ask("/readyz") == (503, "draining\n")
        assert watched.ask("/livez") == (200, "live\n")
        hear("WATCHDOG=1")
        watched.open("gate")
        assert worker.end().code == 0
