"""`brokerjobs broker` as a person at a shell uses it, each verb in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pika
import pytest

from brokerjobs.node import state
from brokerjobs.node.ports import listens
from tests.conftest import VERSIONS, _installation
from tests.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]


class Shell:
    def __init__(self, home: Path) -> None:
        rabbitmq = _installation(VERSIONS[-1])  # what differs by version is tested in broker/test_node.py
        kept = {key: value for key, value in os.environ.items() if not key.startswith("BROKERJOBS_")}
        self.rabbitmq = str(rabbitmq.scripts)
        self.version = rabbitmq.version_text
        self.env = {
            **kept,
            "XDG_STATE_HOME": str(home / "my state"),
            "PATH": f"{rabbitmq.erlang}:{kept['PATH']}",
        }

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "brokerjobs", "broker", *arguments],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        with self.begin(*arguments) as process:
            out, err = process.communicate(timeout=200)
        return process.returncode, out, err

    def json(self, *arguments: str) -> dict[str, Any]:
        _, out, err = self.run(*arguments, "--json")
        assert out, err
        value = json.loads(out)
        assert isinstance(value, dict)
        return value


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", shell.env["XDG_STATE_HOME"])
    yield shell
    shell.run("stop")


def is_gone(found: dict[str, Any]) -> bool:
    return not listens(found["epmd_port"]) and not listens(int(found["url"].split(":")[-1].split("/")[0]))


def test_start_status_url_stop(shell: Shell) -> None:
    assert shell.run("status") == (1, "no node runs; start one: brokerjobs broker start\n", "")
    code, out, err = shell.run("start", "--rabbitmq", shell.rabbitmq)
    assert (code, err) == (0, "")
    assert out.startswith(f"RabbitMQ {shell.version} started in ")

    code, url, err = shell.run("url")
    assert (code, err) == (0, "")
    assert url.count("\n") == 1, "nothing but the URL, for export BROKERJOBS_URL=$(...)"
    pika.BlockingConnection(pika.URLParameters(url.strip())).close()
    assert state.running_url() == url.strip()

    again = shell.json("start", "--rabbitmq", shell.rabbitmq)
    found = shell.json("status")
    assert (again["started"], found["running"]) == (False, True)
    assert found["pid"] == again["pid"]
    code, out, err = shell.run("start", "--rabbitmq", "3.10")
    assert (code, out.splitlines()[0]) == (0, f"RabbitMQ {shell.version} runs already")
    assert ("it is not RabbitMQ 3.10" in err) == (not shell.version.startswith("3.10."))
    assert shell.json("url") == {"url": url.strip(), "management_url": found["management_url"]}
    assert shell.run("url", "--management")[1] == found["management_url"] + "\n"
    code, out, _ = shell.run("status")
    assert code == 0
    assert all(found[key] in out for key in ("version", "url", "management_url", "log", "folder"))

    code, out, _ = shell.run("stop")
    assert code == 0
    assert found["folder"] in out
    assert is_gone(found)
    assert state.running_url() is None
    assert shell.run("stop") == (0, "no node runs\n", "")
    assert shell.json("stop") == {"running": False, "stopped": False}
    code, out, err = shell.run("url")
    assert (code, out) == (1, "")
    assert "no node runs; start one" in err


def test_jobs_outlive_a_stop_and_a_crash_leaves_no_stale_state(shell: Shell) -> None:
    found = shell.json("start", "--rabbitmq", shell.rabbitmq)
    connection = pika.BlockingConnection(pika.URLParameters(found["url"]))
    connection.channel().queue_declare("kept", durable=True)
    connection.close()
    shell.run("stop")

    found = shell.json("start", "--rabbitmq", shell.rabbitmq)
    connection = pika.BlockingConnection(pika.URLParameters(found["url"]))
    connection.channel().queue_declare("kept", passive=True)
    connection.close()

    os.kill(found["pid"], signal.SIGKILL)
    eventually(lambda: state.running() is None)
    eventually(lambda: is_gone(found), what="the epmd goes with its node")
    assert shell.json("status") == {"running": False}
    assert shell.json("start", "--rabbitmq", shell.rabbitmq)["started"]


def test_two_starts_at_once_start_one_node(shell: Shell) -> None:
    starts = [shell.begin("start", "--json", "--rabbitmq", shell.rabbitmq) for _ in range(2)]
    found = []
    for start in starts:
        with start:
            found.append(json.loads(start.communicate(timeout=200)[0]))
    assert sorted(each["started"] for each in found) == [False, True]
    assert found[0]["pid"] == found[1]["pid"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("start", "--rabbitmq", "9.9"), 78, "choose one of 3.10, 4.0, 4.3"),
        (("start", "--rabbitmq", "/no/such"), 69, "no such folder: /no/such"),
        (("start", "--nonsense"), 2, "No such option"),
    ],
)
def test_what_cannot_be_ends_with_one_clear_line(
    shell: Shell, arguments: tuple[str, ...], code: int, said: str
) -> None:
    ended, out, err = shell.run(*arguments)
    assert (ended, out) == (code, "")
    assert said in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("brokerjobs: ")
    assert "Traceback" not in err


def test_a_node_that_does_not_start_leaves_nothing_running(shell: Shell, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    server = broken / "sbin" / "rabbitmq-server"
    server.parent.mkdir(parents=True)
    server.write_text("#!/bin/sh\necho BOOT FAILED\nexit 1\n")
    server.chmod(0o755)
    for other in "rabbitmqctl", "rabbitmq-plugins", "rabbitmq-env":
        (server.parent / other).symlink_to((Path(shell.rabbitmq) / other).resolve())
    (broken / "plugins" / f"rabbit-{shell.version}").mkdir(parents=True)
    code, out, err = shell.run("start", "--rabbitmq", str(broken))
    assert (code, out) == (69, "")
    assert "BOOT FAILED" in err
    assert state.running() is None
