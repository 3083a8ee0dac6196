"""The demo as a person runs it: what it counts is so, and it leaves nothing behind, however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pika.exceptions
import pytest

from brokerjobs.demo.plan import FEWEST, QUEUES, make
from brokerjobs.node.ports import reserve
from brokerjobs.node.private import PrivateNode
from tests import amqp
from tests.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

SEED = 7
RUN_TIMEOUT = 120  # seconds
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def mark() -> str:
    """Stands in the environment of all processes of one demo, and nowhere else."""
    return f"demo-{uuid.uuid4().hex}"


@pytest.fixture
def at_url(environment: dict[str, str], mark: str, tmp_path: Path) -> dict[str, str]:
    """The environment of a demo on the test's broker."""
    return {**environment, "DEMO_MARK": mark, "TMPDIR": str(tmp_path), "COLUMNS": "200"}


@pytest.fixture
def on_its_own(at_url: dict[str, str], node: PrivateNode) -> dict[str, str]:
    """The environment of a demo that starts a RabbitMQ."""
    scripts = node.installation.scripts
    found = scripts.parents[3] if scripts.match("usr/lib/rabbitmq/bin") else scripts
    kept = {name: value for name, value in at_url.items() if name != "BROKERJOBS_URL"}
    return {**kept, "BROKERJOBS_RABBITMQ": str(found)}


def command(*options: str) -> list[str]:
    return [sys.executable, "-m", "brokerjobs.demo", "--seed", str(SEED), "--jobs", str(FEWEST), *options]


def run(environment: Mapping[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*options),
        env=environment,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_TIMEOUT,
    )


class Running:
    """A demo that stays; its output line by line."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            command(), env=environment, cwd=ROOT, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def read_until(self, text: str) -> list[str]:
        """The lines up to one that holds the text."""
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line.rstrip())
            if text in line:
                return lines
        raise AssertionError(f"it ended without saying {text!r}:\n" + "\n".join(lines))

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def start() -> Iterator[Any]:
    started: list[Running] = []

    def start(environment: Mapping[str, str]) -> Running:
        started.append(Running(environment))
        return started[-1]

    yield start
    for demo in started:
        demo.close()


def processes(mark: str) -> list[str]:
    """Command lines of all processes with this mark in their environment."""
    shown = subprocess.run(
        ["ps", "axeww", "-o", "pid,args"], capture_output=True, text=True, check=True
    ).stdout
    return [line[:120] for line in shown.splitlines() if mark in line]


def assert_nothing_is_left(mark: str) -> None:
    eventually(lambda: not processes(mark), timeout=15, what="no process is left")


def queues(url: str) -> dict[str, int]:
    """Which of the demo's queues exist, and how much is ready in them."""
    names = [f"brokerjobs-demo.{queue}{end}" for queue in QUEUES for end in ("", ".dead")] + [
        "brokerjobs-demo.jobs.unrouted"
    ]
    found = {}
    for name in names:
        with suppress(pika.exceptions.ChannelClosedByBroker):  # there is no such queue
            found[name] = amqp.ready(url, name)
    return found


def test_all_counts_agree_with_what_the_queues_hold(at_url: dict[str, str], url: str, mark: str) -> None:
    done = run(at_url, "--exit", "--json", "--keep")

    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    expected = make(SEED, FEWEST).expected
    assert summary["agrees"] is True
    assert summary["published"] == summary["done"] + summary["dead"]
    assert (summary["done"], summary["retried"]) == (expected.done, expected.retried)
    assert summary["dead_by_reason"] == dict(expected.dead)
    assert summary["published_by_demo"] == FEWEST
    assert summary["waits"]["count"] == summary["retried"]
    assert "agree (" in done.stderr

    dead = {queue: amqp.peek(url, f"brokerjobs-demo.{queue}.dead") for queue in QUEUES}
    by_queue = {queue: len(found) for queue, found in dead.items() if found}
    assert by_queue == summary["dead_by_queue"]
    reasons = Counter(message.headers["brokerjobs-reason"] for found in dead.values() for message in found)
    assert reasons == summary["dead_by_reason"]
    assert not any(queues(url)[f"brokerjobs-demo.{queue}"] for queue in QUEUES)
    assert queues(url)["brokerjobs-demo.jobs.unrouted"] == 0
    assert_nothing_is_left(mark)


def test_it_stays_and_works_until_it_is_told_to_end(
    start: Any, at_url: dict[str, str], url: str, mark: str
) -> None:
    with amqp.channel(url) as channel:
        for queue in (
            "brokerjobs-demo.jobs.unrouted",
            "brokerjobs-demo.emails.dead",
        ):  # of an earlier demo, and not as they should be
            channel.queue_declare(queue, durable=True)
            channel.basic_publish("", queue, b"left over")
        channel.queue_declare("emails.dead", durable=True)
        channel.basic_publish("", "emails.dead", b"the person's own")

    demo = start(at_url)
    said = demo.read_until("Ctrl-C ends the demo")
    assert any("agree (" in line for line in said)
    assert any("BROKERJOBS_NAMESPACE=brokerjobs-demo" in line for line in said)
    assert not any(at_url["BROKERJOBS_URL"] in line for line in said)  # it may hold a password

    second = run(at_url, "--exit")
    assert second.returncode == 1
    assert "is another demo running?" in second.stderr

    amqp.publish(
        url, "emails.welcome", b'{"user_id": 99999}', exchange="brokerjobs-demo.jobs", message_id="by-hand"
    )
    demo.read_until("emails.welcome by-hand done")

    assert demo.end(signal.SIGINT) == 0
    assert queues(url) == {}
    assert amqp.ready(url, "emails.dead") == 1
    assert list(Path(at_url["TMPDIR"]).glob("brokerjobs-demo-*")) == []
    assert_nothing_is_left(mark)


def test_it_says_so_when_the_worker_dies(start: Any, at_url: dict[str, str], mark: str) -> None:
    demo = start(at_url)
    demo.read_until("published")
    (worker,) = [line.split()[0] for line in processes(mark) if "brokerjobs consume" in line]

    os.kill(int(worker), signal.SIGKILL)

    said = demo.read_until("the worker ended; it said last:")
    (log,) = [line.split(": ")[1] for line in said if "log tells more" in line]
    assert '"consuming"' in Path(log).read_text()
    assert demo.process.wait(30) == 1
    assert_nothing_is_left(mark)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_its_own_rabbitmq_and_worker_end_with_it(
    start: Any, on_its_own: dict[str, str], mark: str, number: int
) -> None:
    demo = start(on_its_own)
    demo.read_until("published")
    assert len(processes(mark)) > 3

    assert demo.end(number) == (130 if number == signal.SIGTERM else -signal.SIGKILL)
    assert_nothing_is_left(mark)


class TestWithoutABroker:
    """These need none, so they run once."""

    @pytest.fixture
    def bare(self) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if not name.startswith("BROKERJOBS_")}

    def test_a_url_where_nobody_answers_is_exit_code_69(self, bare: dict[str, str]) -> None:
        with closing(reserve()) as port:
            done = run({**bare, "BROKERJOBS_URL": f"amqp://guest:secret@127.0.0.1:{port.number}/"}, "--exit")

        assert done.returncode == 69
        assert f"127.0.0.1:{port.number}" in done.stderr
        assert "secret" not in done.stderr + done.stdout
        assert "Traceback" not in done.stderr

    def test_a_setting_that_cannot_be_is_exit_code_78(self, bare: dict[str, str]) -> None:
        done = run({**bare, "BROKERJOBS_URL": "http://localhost/"}, "--exit")

        assert done.returncode == 78
        assert "amqp://" in done.stderr

    @pytest.mark.parametrize("options", [["--jobs", "19"], ["--seed", "x"], ["--nonsense"]])
    def test_a_wrong_option_is_exit_code_2(self, bare: dict[str, str], options: list[str]) -> None:
        done = run(bare, *options)

        assert done.returncode == 2
        assert done.stderr.startswith("demo: ")


def test_a_wrong_password_is_exit_code_78(at_url: dict[str, str]) -> None:
    done = run(
        at_url | {"BROKERJOBS_URL": at_url["BROKERJOBS_URL"].replace("guest:guest", "guest:wrong")}, "--exit"
    )

    assert done.returncode == 78
    assert "wrong" not in done.stderr.replace("wrong name or password", "")
