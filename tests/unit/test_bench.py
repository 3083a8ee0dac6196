"""The arithmetic and the tables of the bench; nothing here is timed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from bench import job, report
from bench.__main__ import SECTIONS, BadOption, Options
from bench.adapter import Order, Plan, entrants, jobs
from bench.contest import OutOfContest, Stage
from bench.contestants.raw_pika import Pika
from bench.figures import Column, Summary, Table, percentile, ratio, slope, summary
from bench.floors import IN_MEMORY, Floor
from bench.hot_path import PAIRS
from bench.quick import RATIO, judged
from bench.sections import REFERENCE, Bench
from tests.pages import ROOT

SPEED = Column("jobs/s")
LATENCY = Column("p50 ms", 2, compared=False)


@pytest.fixture
def table() -> Table:
    made = Table("drain", "5 jobs", [SPEED, LATENCY], "brokerjobs")
    for at, (ours, theirs) in enumerate([(1000.0, 500.0), (2000.0, 900.0), (100.0, 100.0)]):
        made.add("brokerjobs", SPEED, at, ours)
        made.add("Peer", SPEED, at, theirs)
    made.add("brokerjobs", LATENCY, 0, 1.234)
    return made


def test_a_summary_is_the_median_and_the_spread() -> None:
    assert summary({0: 3.0, 1: 1.0, 2: 2.0}) == Summary(2.0, 1.0, 3.0)
    assert summary({}) is None


def test_a_ratio_compares_within_rounds() -> None:
    # The medians, 500 and 1000, would say one half as well, but not for this reason.
    assert ratio({0: 10.0, 1: 500.0, 2: 900.0}, {0: 10.0, 1: 2500.0, 2: 1000.0}) == 0.9


def test_a_ratio_leaves_out_rounds_that_lack_one_of_both() -> None:
    assert ratio({0: 1.0, 2: 6.0}, {1: 2.0, 2: 3.0}) == 2.0
    assert ratio({0: 1.0}, {1: 2.0}) is None
    assert ratio({0: 1.0}, {0: 0.0}) is None


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 50.0), (0.99, 99.0), (0.0, 1.0), (1.0, 100.0), (0.001, 1.0)]
)
def test_a_percentile_is_one_of_the_values(share: float, expected: float) -> None:
    assert percentile([float(value) for value in range(100, 0, -1)], share) == expected


def test_a_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_a_slope_is_growth_per_unit() -> None:
    assert slope([0.0, 1.0, 2.0], [5.0, 7.0, 9.0]) == pytest.approx(2.0)


def test_markdown_shows_median_spread_and_ratio(table: Table) -> None:
    table.note("Peer: as it comes.")
    table.note("Peer: as it comes.")

    assert report.markdown(table).splitlines() == [
        "**drain**: 5 jobs",
        "",
        "|  | jobs/s | p50 ms |",
        "| --- | ---: | ---: |",
        "| brokerjobs | 1,000 (100–2,000) | 1.23 |",
        "| Peer | 500 (100–900) ×0.50 | – |",
        "",
        "Peer: as it comes.",
    ]


def test_a_terminal_shows_the_same_cells(table: Table) -> None:
    drawn = io.StringIO()

    report.show(table, Console(file=drawn, width=120))

    assert "500 (100–900) ×0.50" in drawn.getvalue()


def test_json_holds_each_figure(table: Table) -> None:
    figures = json.loads(json.dumps(report.plain([table])))

    assert figures["drain"]["Peer"] == {
        "jobs/s": {"median": 500.0, "low": 100.0, "high": 900.0, "ratio": 0.5}
    }
    assert "ratio" not in figures["drain"]["brokerjobs"]["jobs/s"]


def test_options_come_from_the_environment() -> None:
    chosen = Options.read({"SECTIONS": "drain, io", "PEERS": "Celery", "JOBS": "20_000", "MARKDOWN": "1"})

    assert (chosen.sections, chosen.peers, chosen.jobs, chosen.rounds) == (
        ("drain", "io"),
        ("celery",),
        20_000,
        3,
    )
    assert chosen.markdown
    assert "soak" not in Options.read({"SECTIONS": "all"}).sections


@pytest.mark.parametrize(
    "given", [{"SECTIONS": "draining"}, {"PEERS": "selery"}, {"ROUNDS": "0"}, {"JOBS": "many"}]
)
def test_a_bad_option_is_named(given: dict[str, str]) -> None:
    (name,) = given
    with pytest.raises(BadOption, match=f"^{name}"):
        Options.read(given)


def test_a_plan_survives_its_way_to_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Stage("amqp://there", "redis://there").plan(Pika, at_once=7, queues=2, tag="few")
    monkeypatch.setenv("BENCH_PLAN", plan.written())

    assert Plan.given() == plan
    assert plan.queues == ("bench-pika-few-0", "bench-pika-few-1")
    assert (plan.prefetch, plan.redis) == (7, "")


def test_jobs_at_a_rate_are_dated_when_they_were_due() -> None:
    first, second = jobs(Order(how="each", count=2, rate=1_000_000.0, text=3))

    assert second["sent"] - first["sent"] == pytest.approx(1e-6, abs=1e-8)
    assert second["text"] == "xxx"


def test_tallies_of_several_processes_are_added_up(tmp_path: Path) -> None:
    run = "from bench import job; [job.run(0.0, '') for _ in range(3)]"
    for _ in range(2):
        environment = {**os.environ, "BENCH_TALLY": str(tmp_path), "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", run], env=environment, check=True, timeout=60)

    found = job.read(tmp_path)

    assert job.count(tmp_path) == found.done == len(found.waits) == 6
    assert found.first < found.last
    assert min(found.waits) > 0


def test_nothing_was_done_where_there_is_no_tally(tmp_path: Path) -> None:
    assert job.read(tmp_path).done == job.count(tmp_path) == 0


def test_the_page_explains_every_section() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()

    assert [name for name in SECTIONS if f"| `{name}` |" not in page] == []


def test_rounds_are_taken_in_turns_and_a_failure_costs_one_figure() -> None:
    asked: list[str] = []
    bench = Bench(Stage("amqp://there"), [], rounds=2, jobs=1, waiting=1, minutes=1, say=lambda text: None)
    made = Table("drain", "", [SPEED], "brokerjobs")

    def measured(row: str) -> Iterator[tuple[Column, float]]:
        asked.append(row)
        if asked == ["brokerjobs", "Peer"]:
            raise OutOfContest("it stood still")
        yield SPEED, float(len(asked))

    bench.measure(made, [(row, partial(measured, row)) for row in ("brokerjobs", "Peer")])

    assert asked == ["brokerjobs", "Peer"] * 2
    assert made.cells == {"brokerjobs": {"jobs/s": {0: 1.0, 1: 3.0}}, "Peer": {"jobs/s": {1: 4.0}}}
    assert made.notes == ["Peer: it stood still"]


def test_each_contestant_tells_of_itself() -> None:
    for who in [*entrants("ours"), *entrants("raw_pika")]:
        assert who.title
        assert who.settings
        assert who.sends or who.styles
    assert entrants("ours")[0].title == REFERENCE


def test_a_ratio_below_its_floor_or_without_a_figure_is_broken() -> None:
    made = Table("in memory", "", [RATIO], "")
    for at, value in enumerate([1.5, 3.0, 1.9]):
        made.add("drain, CPU", RATIO, at, value)
    drawn = io.StringIO()

    found = judged(
        made,
        {"drain, CPU": Floor(2.0, goal=4.0), "drain, steps": Floor(1.0)},
        Console(file=drawn, width=120),
    )

    assert found == {
        "drain, CPU": {"ratio": 1.9, "floor": 2.0, "goal": 4.0, "held": False},
        "drain, steps": {"ratio": 0.0, "floor": 1.0, "goal": None, "held": False},
    }
    assert "BROKEN: drain, CPU is 1.90, and its floor 2" in drawn.getvalue()


def test_a_ratio_at_its_floor_is_held() -> None:
    made = Table("in memory", "", [RATIO], "")
    made.add("drain, CPU", RATIO, 0, 2.0)

    assert judged(made, {"drain, CPU": Floor(2.0)}, Console(file=io.StringIO()))["drain, CPU"]["held"]


def test_each_path_has_a_floor() -> None:
    assert {name.partition(",")[0] for name in IN_MEMORY} == PAIRS.keys()


def test_no_job_goes_on_before_the_gate_opens(tmp_path: Path) -> None:
    gate = job.Gate(tmp_path / job.GO, shut=True)
    before = gate.is_shut
    (tmp_path / job.GO).touch()

    assert (before, gate.is_shut, job.Gate(tmp_path / "none", shut=False).is_shut) == (True, False, False)
