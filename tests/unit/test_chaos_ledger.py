"""Journals become a history; a run that proves nothing is called invalid."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from brokerjobs.errors import ConfigurationError
from tests.chaos.checker import Report
from tests.chaos.history import NEVER
from tests.chaos.journal import Journal, Tail
from tests.chaos.ledger import Ledger
from tests.chaos.plan import Plan, from_environment
from tests.chaos.trial import why_invalid

SENT: dict[str, Any] = {"id": "a", "queue": "swift", "end": "done", "delay": 0.0}
RAN: dict[str, Any] = {"id": "a", "queue": "swift", "hop": 0, "attempt": 1, "redelivered": False, "pid": 7}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def log(folder: Path, name: str, *lines: dict[str, Any]) -> None:
    (folder / f"{name}.log").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_what_began_is_matched_with_what_ended(folder: Path) -> None:
    publisher, worker = Journal(folder / "publisher-a.1-5.jsonl"), Journal(folder / "worker-b.2-7.jsonl")
    invoked = publisher.note("invoke", call=1, **SENT)
    confirmed = publisher.note("ok", call=1)
    publisher.note("invoke", call=2, **{**SENT, "id": "b"})
    started = worker.note("start", run=1, **RAN)
    finished = worker.note("finish", run=1, succeeded=True, again_in=0.0)
    worker.note("start", run=2, **{**RAN, "id": "b"})
    ledger = Ledger(folder)
    ledger.read()
    history = ledger.history()
    assert [(send.id, send.fate, send.invoked, send.ended) for send in history.sends] == [
        ("a", "ok", invoked, confirmed), ("b", "unknown", history.sends[1].invoked, NEVER),
    ]  # fmt: skip
    assert [(run.worker, run.pid, run.started, run.finished, run.succeeded) for run in history.runs] == [
        ("worker-b.2", 7, started, finished, True), ("worker-b.2", 7, history.runs[1].started, NEVER, None),
    ]  # fmt: skip
    assert (ledger.confirmed, ledger.done) == ({"a": "done"}, {"a"})


def test_calls_of_two_lives_of_a_process_are_kept_apart(folder: Path) -> None:
    for pid in 5, 6:
        Journal(folder / f"publisher-a.1-{pid}.jsonl").note("invoke", call=1, **{**SENT, "id": f"{pid}"})
    ledger = Ledger(folder)
    ledger.read()
    assert {send.id for send in ledger.history().sends} == {"5", "6"}


def test_a_line_that_is_being_written_is_read_when_it_is_whole(folder: Path) -> None:
    path = folder / "p.jsonl"
    path.write_text('{"event": "a"}\n{"eve')
    tail = Tail(folder)
    assert [line["event"] for _, line in tail.new()] == ["a"]
    with path.open("a") as file:
        file.write('nt": "b"}\n')
    assert [line["event"] for _, line in tail.new()] == ["b"]
    assert list(tail.new()) == []


def test_a_workers_own_log_tells_of_sessions_and_defects(folder: Path) -> None:
    at = "2026-11-22T05:00:00.500000Z"
    log(
        folder, "worker-a.1",
        {"event": "session ended", "timestamp": at}, {"event": "job released", "timestamp": at, "id": "a"},
        {"event": "consuming", "timestamp": at}, {"event": "run failed", "timestamp": at},
    )  # fmt: skip
    ledger = Ledger(folder)
    ledger.read()
    told = [(notice.worker, notice.event, notice.at % 1, notice.id) for notice in ledger.history().notices]
    assert told == [
        ("worker-a.1", "session ended", 0.5, ""),
        ("worker-a.1", "job released", 0.5, "a"),
        ("worker-a.1", "defect", 0.5, ""),
    ]


def test_a_parents_log_tells_which_of_its_children_died(folder: Path) -> None:
    ended: dict[str, Any] = {"event": "child ended", "timestamp": "2026-11-22T05:00:00.500000Z"}
    log(
        folder, "worker-f.1",
        {**ended, "pid": 7, "signal": "SIGKILL"}, {**ended, "pid": 8, "code": 1},
        {**ended, "pid": 9, "code": 0}, {**ended, "pid": 10, "code": 75},
    )  # fmt: skip
    ledger = Ledger(folder)
    ledger.read()
    told = [(notice.worker, notice.event, notice.pid) for notice in ledger.history().notices]
    assert told == [("worker-f.1", "died", 7), ("worker-f.1", "died", 8)]


def test_faults_deaths_and_failpoints_are_told(folder: Path) -> None:
    nemesis, fleet = Journal(folder / "nemesis.jsonl"), Journal(folder / "fleet.jsonl")
    began = nemesis.note("on", number=1, kind="reset", target="workers", effects=["resend"])
    ended = nemesis.note("off", number=1)
    nemesis.note("on", number=2, kind="hole-in", target="workers", effects=[])
    fleet.note("died", worker="worker-a.1", how="killed")
    Journal(folder / "worker-b.1-9.jsonl").note("failpoint", id="a", text="dead exit", pid=9)
    ledger = Ledger(folder)
    ledger.read()
    history = ledger.history()
    assert [(fault.kind, fault.began, fault.ended) for fault in history.faults] == [
        ("reset", began, ended), ("hole-in", history.faults[1].began, NEVER),
    ]  # fmt: skip
    assert [(notice.worker, notice.event, notice.pid) for notice in history.notices] == [
        ("worker-a.1", "died", 0), ("worker-b.1", "failpoint", 9),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"sends": Counter(ok=94, unknown=3, refused=3)}, "only 94.0% of sends were confirmed"),
        ({"done": 40}, "fewer than half of the jobs were done"),
        ({"faults": Counter({"reset": 2, "cut": 3})}, "reset fired 2 times, less than 3"),
        ({"repeats": Counter()}, "nothing was ever repeated: the faults hit nothing"),
    ],
)
def test_a_run_that_proves_nothing_is_invalid(changes: dict[str, Any], reason: str) -> None:
    fine: dict[str, Any] = {
        "sends": Counter(ok=99, unknown=1), "jobs": 100, "done": 95, "required": ("reset", "cut"),
        "faults": Counter({"reset": 3, "cut": 4}), "repeats": Counter(killed=1),
    }  # fmt: skip
    assert why_invalid(Report(**{**fine, **changes}), Plan(seed=1)) == ([reason] if reason else [])


def test_a_control_run_needs_no_faults_and_no_repeats() -> None:
    report = Report(sends=Counter(ok=100), jobs=100, done=95)
    assert why_invalid(report, Plan(seed=1, faults=("none",))) == []


def test_the_environment_says_what_to_run() -> None:
    plan = from_environment(
        {"SEED": "7", "JOBS": "500", "MINUTES": "0.5", "FAULTS": "reset, cut", "CLUSTER": "1"}, 1
    )
    assert (plan.seed, plan.jobs, plan.minutes, plan.faults, plan.cluster) == (
        7,
        500,
        0.5,
        ("reset", "cut"),
        True,
    )
    assert from_environment({}, 3) == Plan(seed=3)
    with pytest.raises(ConfigurationError, match="must be numbers"):
        from_environment({"JOBS": "many"}, 1)
