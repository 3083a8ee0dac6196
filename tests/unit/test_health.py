"""What a process says of itself: why it is not live or not ready, what it does, and where it is asked."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

from brokerjobs import settings
from brokerjobs.cli import health as verb
from brokerjobs.errors import ConfigurationError
from brokerjobs.health import STILL, ChildHealth, ParentHealth, QueueHealth, WorkerHealth, port_of
from brokerjobs.vitals import Vitals
from tests.waiting import eventually_async

EMAILS = QueueHealth("emails", consuming=True, running=2, slots=10)
WELL = WorkerHealth("rabbit:5672", [EMAILS], begun=True, connected=True)
LOST = replace(EMAILS, consuming=False, kept={"broker": "RabbitMQ cancelled the consumer"})
PAUSED = replace(EMAILS, consuming=False, paused={"operator": "bad deploy", "breaker": "20 failures"})


@pytest.mark.parametrize(
    ("health", "hindrances"),
    [
        (WELL, []),
        (WorkerHealth("rabbit:5672"), ["starting"]),
        (
            WorkerHealth("rabbit:5672", [EMAILS], trouble="connection refused"),
            ["not connected to RabbitMQ at rabbit:5672: connection refused"],
        ),
        (
            WorkerHealth("rabbit:5672", trouble="RabbitMQ at rabbit:5672 cannot be reached: refused"),
            ["not connected to RabbitMQ at rabbit:5672: cannot be reached: refused"],
        ),
        (replace(WELL, queues=[LOST]), ["queue emails is not consumed: RabbitMQ cancelled the consumer"]),
        (replace(WELL, queues=[PAUSED]), []),
        (replace(WELL, blocked=True), ["RabbitMQ at rabbit:5672 blocks publishers: a memory or disk alarm"]),
        (replace(WELL, draining=True, connected=False, trouble="closed"), ["draining"]),
    ],
)
def test_worker_is_ready_while_nothing_hinders_it(health: WorkerHealth, hindrances: list[str]) -> None:
    assert health.hindrances == hindrances
    assert health.stuck == []


def test_pause_on_purpose_is_no_hindrance_and_is_told() -> None:
    health = replace(WELL, queues=[PAUSED])

    assert health.remarks == [
        "queue emails is paused by operator: bad deploy",
        "queue emails is paused by breaker: 20 failures",
    ]
    assert health.words.startswith("consuming emails; queue emails is paused by operator")
    assert health.details["queues"][0]["paused"] == {"operator": "bad deploy", "breaker": "20 failures"}


def child(pid: int, *reasons: str, silence: float = 0.5, **said: Any) -> ChildHealth:
    return ChildHealth(pid, {"reasons": list(reasons), "remarks": ["emails rests"], **said}, silence)


NEW = ChildHealth(3, {}, 0.1)


@pytest.mark.parametrize(
    ("children", "hindrances"),
    [
        ([child(1), child(2)], []),
        ([child(1), NEW], ["process 3: starting"]),
        ([child(1), child(2), NEW], []),  # which takes the place of another
        ([child(1), child(2, "draining"), child(3)], []),
        ([child(1)], ["1 of 2 processes are there"]),
        ([child(1), child(2, silence=STILL)], []),
        ([child(1), child(2, silence=STILL + 1)], ["process 2: it has said nothing for 11 s"]),
        ([child(1, "a", "b"), child(2, "c")], ["process 1: a", "process 1: b", "process 2: c"]),
    ],
)
def test_parent_is_ready_when_all_that_shall_be_there_are(
    children: list[ChildHealth], hindrances: list[str]
) -> None:
    health = ParentHealth(2, children, patience=120)

    assert health.hindrances == hindrances
    assert replace(health, draining=True).hindrances == ["draining"]
    assert health.remarks == ["emails rests"]  # once, whoever says it
    assert [each["pid"] for each in health.details["children"]] == [each.pid for each in children]


def test_parent_is_not_live_when_a_child_has_stood_still_for_longer_than_it_waits() -> None:
    still = child(2, stands_still=100.0, silence=30.0)

    assert ParentHealth(2, [child(1), still], patience=131).stuck == []
    assert ParentHealth(2, [child(1), still], patience=120).stuck == [
        "process 2: its event loop has stood still for 130 s"
    ]


async def test_pulse_stops_with_the_loop_and_comes_back() -> None:
    now, beats = 1000.0, 0
    health = WELL

    def beaten() -> None:
        nonlocal beats
        beats += 1

    vitals = Vitals(lambda: health, "1.2.3", lambda: now)
    vitals.begin(beaten, every=0.01)
    now += STILL + 2  # as seen by another thread, while the loop is here
    assert vitals.stands_still == STILL + 2
    (why,) = vitals.not_live
    assert why.startswith("the event loop stands still since ")
    assert why.endswith(" UTC, for 12 s: a job blocks it")
    status = vitals.status
    assert (status["live"], status["ready"], status["reasons"], status["version"]) == (
        False,
        False,
        [why],
        "1.2.3",
    )

    await eventually_async(lambda: beats > 2)
    health = replace(WELL, blocked=True)
    assert vitals.not_live == []
    assert vitals.not_ready == health.hindrances
    status = vitals.status
    assert (status["live"], status["ready"], status["broker"]["blocked"]) == (True, False, True)

    vitals.end()
    seen = beats
    await asyncio.sleep(0.05)  # noqa: TID251  (that nothing happens takes some time)
    assert beats == seen


@pytest.mark.parametrize(
    ("value", "port"),
    [(9464, 9464), ("9464", 9464), (" 0 ", 0), ("none", None), ("None", None), (65_535, 65_535)],
)
def test_port_as_it_is_written(value: object, port: int | None) -> None:
    assert port_of(value) == port


@pytest.mark.parametrize("value", ["", "all", "65536", "-1", "1.5", 1.5, True, "²"])
def test_port_that_is_none_says_what_could_be(value: object) -> None:
    with pytest.raises(ValueError, match="a port up to 65535, 0 for a free one, or none"):
        port_of(value)


@pytest.mark.parametrize("given", [None, "9001"])
@pytest.mark.parametrize("environment", ["", "9002"])
@pytest.mark.parametrize("file", ["", "metrics-port = 9003", "metrics_port = '9003'", "nonsense"])
def test_verb_finds_the_port_that_a_worker_would_have(
    given: str | None, environment: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BROKERJOBS_METRICS_PORT", environment)
    is_readable = file != "nonsense"
    (tmp_path / "pyproject.toml").write_text(f"[tool.brokerjobs]\n{file}\n" if is_readable else file)
    if is_readable:
        assert verb._port(given) == settings.load(metrics_port=given).metrics_port
    else:  # a probe does without
        assert verb._port(given) == int(given or environment or 9464)


def test_verb_says_what_it_cannot_know(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for value in "none", "0":
        monkeypatch.setenv("BROKERJOBS_METRICS_PORT", value)
        with pytest.raises(SystemExit, match="2"):
            verb._port(None)
        assert "give --port" in capsys.readouterr().err
    with pytest.raises(ConfigurationError, match="metrics_port must be a port"):
        verb._port("many")
    assert isinstance(verb.command, click.Command)
