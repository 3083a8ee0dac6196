from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from brokerjobs.instruments import Level
from brokerjobs.metrics import EXCEPTIONS, FAILURES, OTHER, Metrics
from brokerjobs.supervisor.report import Report
from brokerjobs.totals import Changes, Teller, Totals, total


def told(changes: Changes) -> dict[str, float | None]:
    return {
        sample + "".join(f" {label}={text}" for label, text in labels): value
        for *_, samples in changes
        for sample, labels, value in samples
    }


def summed(totals: Totals) -> dict[str, float]:
    return {
        sample.name + "".join(f" {label}={text}" for label, text in sample.labels.items()): sample.value
        for family in totals.collect()
        for sample in family.samples
    }


def counted(jobs: int, *, running: int = 0) -> Metrics:
    metrics = Metrics()
    metrics.prepare("emails", ["emails.welcome"], 10)
    count(metrics, jobs)
    metrics.in_progress.labels("emails").value = running
    return metrics


def count(metrics: Metrics, jobs: int) -> None:
    for _ in range(jobs):
        metrics.finished.labels("emails", "emails.welcome", "succeeded").inc()
        metrics.duration.labels("emails", "emails.welcome").observe(0.02)


FINISHED = "brokerjobs_jobs_finished_total queue=emails job_name=emails.welcome outcome=succeeded"
QUICK = "brokerjobs_job_duration_seconds_bucket queue=emails job_name=emails.welcome le=0.025"
RUNNING = "brokerjobs_jobs_in_progress queue=emails"


def test_all_is_told_once_then_only_what_changed() -> None:
    metrics = counted(0)
    teller = Teller(metrics.registry)

    first = told(teller.changes())
    assert (first[FINISHED], first[RUNNING]) == (0, 0)
    assert not [name for name in first if "_created" in name]
    assert not told(teller.changes())

    metrics.in_progress.labels("emails").inc()
    assert told(teller.changes()) == {RUNNING: 1}


def over_the_pipe(changes: Changes) -> Changes:
    return Report.read(Report(metrics=changes).line).metrics


def test_sum_of_all_that_live() -> None:
    totals = Totals()
    for source, metrics in ("one", counted(3, running=1)), ("two", counted(4, running=2)):
        totals.take(source, over_the_pipe(Teller(metrics.registry).changes()))

    sums = summed(totals)
    assert (sums[FINISHED], sums[QUICK], sums[RUNNING]) == (7, 7, 3)


def test_sums_of_counts_never_go_backwards_and_gauges_end_with_their_process() -> None:
    totals = Totals()
    totals.take("one", Teller(counted(3, running=1).registry).changes())
    totals.take("two", Teller(counted(4, running=2).registry).changes())

    totals.end("one")
    assert summed(totals)[FINISHED] == 7
    assert summed(totals)[RUNNING] == 2

    totals.take("three", Teller(counted(5, running=4).registry).changes())
    totals.end("two")
    totals.end("two")  # once is enough
    sums = summed(totals)
    assert (sums[FINISHED], sums[QUICK], sums[RUNNING]) == (12, 12, 4)


# Of each level what three processes that say 5, 0 and 3 are together.
TOGETHER = {
    "brokerjobs_jobs_in_progress": 8,
    "brokerjobs_worker_slots": 8,
    "brokerjobs_jobs_oldest_start_timestamp_seconds": 3,  # of those that run any
    "brokerjobs_queue_paused": 5,
    "brokerjobs_breaker_open": 5,
    "brokerjobs_queue_messages": 5,
    "brokerjobs_queue_consumers": 5,
    "brokerjobs_queue_oldest_age_seconds": 3,  # each says at most
    "brokerjobs_broker_connected": 0,
    "brokerjobs_event_loop_lag_seconds": 5,
    "brokerjobs_worker_info": 5,
}


def set_all(metrics: Metrics, value: float) -> None:
    for instrument in vars(metrics).values():
        if isinstance(instrument, Level):
            instrument.labels(*("x" for _ in instrument._labels)).set(value)


def test_each_level_says_what_several_are_together() -> None:
    totals = Totals()
    for source, value in enumerate((5, 0, 3)):
        set_all(metrics := Metrics(), value)
        totals.take(source, over_the_pipe(Teller(metrics.registry).changes()))

    levels = {family.name: family.samples[0].value for family in totals.collect() if family.type == "gauge"}
    assert levels == TOGETHER


def test_a_process_that_ended_says_nothing_of_levels_any_more() -> None:
    totals = Totals()
    for source, value in enumerate((5, 0, 3)):
        set_all(metrics := Metrics(), value)
        totals.take(source, Teller(metrics.registry).changes())

    totals.end(0)
    totals.end(1)

    levels = [
        sample.value for family in totals.collect() if family.type == "gauge" for sample in family.samples
    ]
    assert levels == [3] * len(TOGETHER)


def test_what_a_process_runs_is_the_earliest_of_all_or_nothing() -> None:
    totals = Totals()
    for source in range(2):
        (metrics := Metrics()).oldest_start.labels("emails")
        totals.take(source, Teller(metrics.registry).changes())

    assert summed(totals)["brokerjobs_jobs_oldest_start_timestamp_seconds queue=emails"] == 0


def test_what_a_process_tells_no_more_is_that_of_the_others() -> None:
    totals, tellers = Totals(), {}
    for source, ready in ("one", 5), ("two", 3):
        (metrics := Metrics()).queue_messages.labels("emails", "ready").set(ready)
        tellers[source] = metrics, Teller(metrics.registry)
        totals.take(source, over_the_pipe(tellers[source][1].changes()))
    ready_ones = "brokerjobs_queue_messages queue=emails state=ready"
    assert summed(totals)[ready_ones] == 5

    for source, left in ("one", {ready_ones: 3}), ("two", {}):
        metrics, teller = tellers[source]
        metrics.queue_messages.forget("emails", "ready")
        changes = over_the_pipe(teller.changes())
        assert told(changes) == {ready_ones: None}
        totals.take(source, changes)
        assert {name: value for name, value in summed(totals).items() if "messages" in name} == left
        assert not told(teller.changes())

    metrics.queue_messages.labels("emails", "ready").set(4)
    totals.take("two", over_the_pipe(teller.changes()))
    assert summed(totals)[ready_ones] == 4


def failures(totals: Totals) -> dict[str, float]:
    return {
        sample.labels["exception"]: sample.value
        for family in totals.collect()
        if family.name == FAILURES
        for sample in family.samples
    }


def test_exceptions_stay_few_over_all_processes_that_come_and_go() -> None:
    """Each process tells the first ones by their names, and the next one may meet others."""
    totals, per_process, before = Totals(), EXCEPTIONS - 10, {OTHER: 0.0}
    for turn in range(4):
        metrics = Metrics()
        for number in range(per_process):
            name = metrics.exception(f"app.Error{turn}x{number}")
            metrics.failures.labels("emails", "emails.welcome", name).inc()
        metrics.failures.labels("emails", "emails.welcome", metrics.exception("app.Error0x0")).inc()
        totals.take(turn, over_the_pipe(Teller(metrics.registry).changes()))
        if turn % 2:
            totals.end(turn)

        now = failures(totals)
        assert sum(now.values()) == (turn + 1) * (per_process + 1)
        assert all(now[name] >= value for name, value in before.items() if value)
        before = now

    assert len(before) == EXCEPTIONS + 1
    assert before["app.Error0x0"] == 5
    assert before[OTHER] == 4 * per_process - EXCEPTIONS


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["count", "tell", "end"])),
        max_size=40,
    )
)
def test_counts_are_what_all_that_ever_lived_have_told(steps: list[tuple[int, str]]) -> None:
    """Whoever ends and comes again; and no sum ever goes backwards."""
    totals, expected, before = Totals(), 0, 0.0
    living: dict[int, tuple[Metrics, Teller, int]] = {}
    for source, step in steps:
        metrics, teller, untold = living.get(source) or ((made := Metrics()), Teller(made.registry), 0)
        if step == "count":
            count(metrics, 1)
            untold += 1
        elif step == "tell":
            totals.take(source, teller.changes())
            expected, untold = expected + untold, 0
        living[source] = metrics, teller, untold
        if step == "end":
            totals.end(source)
            del living[source]
        sums = summed(totals)
        assert sums.get(FINISHED, 0) == sums.get(QUICK, 0) == expected >= before
        before = expected


def test_later_changes_take_the_place_of_earlier_ones() -> None:
    totals, metrics = Totals(), counted(3, running=1)
    teller = Teller(metrics.registry)
    totals.take("one", teller.changes())
    count(metrics, 2)
    metrics.in_progress.labels("emails").value = 0
    totals.take("one", over_the_pipe(teller.changes()))

    sums = summed(totals)
    assert (sums[FINISHED], sums[RUNNING]) == (5, 0)


def test_page_is_what_one_process_would_serve() -> None:
    metrics, totals = counted(3, running=1), Totals()
    totals.take("one", over_the_pipe(Teller(metrics.registry).changes()))

    assert families(generate_latest(totals).decode()) == families_of(metrics.registry)


def families(page: str) -> dict[str, tuple[str, str, Sequence[object]]]:
    return {
        family.name: (
            family.type,
            family.documentation,
            sorted((s.name, sorted(s.labels.items()), s.value) for s in family.samples),
        )
        for family in text_string_to_metric_families(page)
    }


def families_of(registry: CollectorRegistry) -> dict[str, tuple[str, str, Sequence[object]]]:
    return {
        family.name: (
            family.type,
            family.documentation,
            sorted(
                (s.name, sorted(s.labels.items()), s.value)
                for s in family.samples
                if not s.name.endswith("_created")
            ),
        )
        for family in registry.collect()
        if family.samples
    }


def test_total_adds_up_all_labels() -> None:
    metrics = counted(3, running=2)
    metrics.finished.labels("orders", "orders.ship", "dead").inc(4)

    assert (total(metrics.finished), total(metrics.in_progress), total(metrics.abandoned)) == (7, 2, 0)


# -- the line of a report


def test_report_is_read_as_it_was_written() -> None:
    report = Report(consuming=True, finished=3, running=2, abandoned=1, memory=5_000_000)

    assert Report.read(report.line) == replace(report, metrics=[])
    assert report.line.count(b"\n") == 1


def test_what_a_newer_child_says_besides_is_passed_over() -> None:
    assert Report.read(json.dumps({"finished": 3, "mood": "good"}).encode()).finished == 3


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"[]", b"nonsense\n", b"\xff\n", b'{"status": 3}', b'{"status": {"stands_still": "soon"}}'],
)
def test_what_is_no_report_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):
        Report.read(line)
