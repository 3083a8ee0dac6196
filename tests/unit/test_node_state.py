import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from brokerjobs.cli import broker
from brokerjobs.node import detached, state
from brokerjobs.node.locks import locked
from brokerjobs.node.state import State

STATE = State(
    url="amqp://guest:guest@127.0.0.1:20001/%2F",
    management_url="http://127.0.0.1:20002",
    prometheus_url="http://127.0.0.1:20003/metrics",
    version="4.3.6",
    pid=1,  # lives on every machine, and is not our node
    name="brokerjobs@localhost",
    folder="/data",
    log="/data/node.log",
    epmd_port=20005,
    started_at=1.5,
)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    state.home().mkdir(parents=True)


def test_nothing_runs_where_nothing_was_started() -> None:
    assert state.running() is None
    assert state.running_url() is None


def test_a_state_that_a_crash_or_reboot_left_is_not_believed() -> None:
    state.lock_path().touch()
    state.write(STATE)
    assert state.read() == STATE
    assert state.running() is None
    assert state.running_url() is None


def test_a_node_that_holds_its_lock_runs() -> None:
    state.write(STATE)
    with locked(state.lock_path(), timeout=0):
        assert state.running() == STATE
        assert state.running_url() == STATE.url
        state.clear()
        assert state.running() is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", json.dumps({"url": "amqp://x", "of": "a later version"})]
)
def test_an_illegible_state_is_none(text: str) -> None:
    (state.home() / "node.json").write_text(text)
    with locked(state.lock_path(), timeout=0):
        assert state.running() is None


def test_without_a_home_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    assert state.running_url() is None


@pytest.mark.parametrize("before", ["3.10.8", "4.3.6", None])
def test_start_of_another_rabbitmq_says_where_the_jobs_of_the_last_one_are(
    before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if before:
        state.write(replace(STATE, version=before, folder=f"/home/rabbitmq-{before}"))
    now = replace(STATE, version="4.3.6", folder="/home/rabbitmq-4.3.6")
    monkeypatch.setattr(detached, "start", lambda _: (now, True))

    done = CliRunner().invoke(broker.command, ["start"])

    assert done.exit_code == 0
    assert ("they stay in /home/rabbitmq-3.10.8" in done.stderr) == (before == "3.10.8")
