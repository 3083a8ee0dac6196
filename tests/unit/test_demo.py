"""What the demo works out from a seed, a log, and metrics."""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from brokerjobs.demo.display import Picture, PlainDisplay, Row, display_on, draw
from brokerjobs.demo.holdings import Holdings
from brokerjobs.demo.ledger import Ledger
from brokerjobs.demo.plan import FEWEST, QUEUES, Plan, make
from brokerjobs.demo.summary import Evidence, Summary, check
from brokerjobs.demo.worker import read_metrics
from consumers._gateway import Gateway

NOW = 1_800_000_000.0


def line(event: str, job: str = "emails.welcome", id: str = "1", **fields: Any) -> dict[str, Any]:
    return {"event": event, "level": "info", "job": job, "id": id, "attempt": 1, **fields}


def retried(delay: float = 1.0, **fields: Any) -> dict[str, Any]:
    return line("job retried", delay=delay, reason="failed", error="OSError: away", **fields)


def dead(reason: str = "exhausted", **fields: Any) -> dict[str, Any]:
    return line("job dead", reason=reason, error="OSError: away", **fields)


class TestPlan:
    @pytest.mark.parametrize("jobs", [FEWEST, 21, 100, 300])
    def test_it_has_as_many_jobs_as_asked_for(self, jobs: int) -> None:
        assert make(7, jobs).jobs == jobs

    def test_one_seed_is_one_plan(self) -> None:
        first, second = make(7, 60), make(7, 60)

        assert [m.body for m in first.messages] == [m.body for m in second.messages]
        assert (first.by_name, first.busy, first.expected) == (second.by_name, second.busy, second.expected)
        assert [m.body for m in make(8, 60).messages] != [m.body for m in first.messages]

    @pytest.mark.parametrize("seed", range(20))
    def test_even_the_smallest_shows_each_kind_of_end(self, seed: int) -> None:
        plan = make(seed, FEWEST)

        assert set(plan.expected.dead) == {"json", "arguments", "unknown_job", "rejected", "exhausted"}
        assert plan.busy
        assert any("delay" in one.options for one in plan.by_name)
        assert {one.options.get("priority") for one in plan.by_name} >= {9}
        bodies = [json.loads(message.body) for message in plan.messages if message.body[:1] == b"{"]
        fates = {Gateway(seed).fate(body["card"]) for body in bodies if "card" in body}
        assert fates == {"good", "declined", "slow", "down"}

    def test_whom_the_mail_server_refuses_is_not_put_off_first(self) -> None:
        plan = make(7, 300)

        assert not set(plan.unknown) & set(plan.busy)


class TestLedger:
    def test_a_job_is_counted_once_however_often_it_runs(self) -> None:
        ledger = Ledger()
        ledger.publish("1", "emails.welcome")
        ledger.read(retried(), NOW)
        ledger.read(line("job succeeded"), NOW + 1)
        ledger.read(line("job succeeded"), NOW + 2)  # delivered twice

        assert (len(ledger.entries), ledger.done, ledger.retried) == (1, 1, 1)
        assert ledger.outcomes == {"succeeded": 2, "retried": 1}
        assert not ledger.unfinished

    def test_an_outcome_may_be_logged_before_the_publisher_has_its_confirm(self) -> None:
        ledger = Ledger()
        ledger.read(dead(), NOW)
        ledger.publish("1", "emails.welcome", due=NOW + 5)

        assert ledger.dead == {"exhausted": 1}
        assert not ledger.unfinished

    def test_a_job_waits_until_it_is_due(self) -> None:
        ledger = Ledger()
        ledger.read(retried(delay=2.0), NOW)

        assert ledger.waiting("emails", NOW + 1.9) == 1
        assert ledger.waiting("emails", NOW + 2.1) == 0
        assert ledger.waiting("orders", NOW + 1.9) == 0
        assert ledger.unfinished == ["1"]

    def test_a_step_that_succeeded_has_sent_the_next(self) -> None:
        ledger = Ledger()
        ledger.read(line("job succeeded", job="orders.confirm", id="order-1.confirm"), NOW)

        assert ledger.unfinished == ["order-1.receipt", "order-1.ship"]

    def test_a_step_that_failed_has_sent_nothing(self) -> None:
        ledger = Ledger()
        ledger.read(dead(job="payments.charge", id="order-1.charge"), NOW)

        assert list(ledger.entries) == ["order-1.charge"]

    def test_trouble_of_the_worker_is_told(self) -> None:
        event = Ledger().read({"event": "run failed", "level": "error", "queue": "emails"}, NOW)

        assert event
        assert event.kind == "trouble"
        assert Ledger().read({"event": "consuming", "level": "info"}, NOW) is None


def finished() -> tuple[Plan, Evidence]:
    """A plan of three jobs, and evidence that agrees with it."""
    plan = Plan(orders=[])
    plan.expected.done, plan.expected.dead = 2, Counter(rejected=1)
    ledger = Ledger()
    for id in "123":
        ledger.publish(id, "emails.welcome")
    ledger.read(line("job succeeded", id="1"), NOW)
    ledger.read(line("job succeeded", id="2"), NOW)
    ledger.read(dead("rejected", id="3"), NOW)
    nothing = dict.fromkeys(QUEUES, 0)
    evidence = Evidence(
        ledger=ledger,
        holdings=Holdings(ready=nothing, dead=nothing | {"emails": 1}, delayed=0, unrouted=0),
        dead_ids={queue: ["3"] if queue == "emails" else [] for queue in QUEUES},
        metrics=Counter(
            {
                ("brokerjobs_jobs_finished_total", "succeeded"): 2,
                ("brokerjobs_jobs_finished_total", "dead"): 1,
            }
        ),
        message_ids=["<1@example.com>", "<2@example.com>"],
        order_states={},
    )
    return plan, evidence


def wrong(plan: Plan, evidence: Evidence) -> list[str]:
    return [each.claim for each in check(plan, evidence) if not each.holds]


class TestChecks:
    def test_what_agrees_passes(self) -> None:
        assert wrong(*finished()) == []

    def test_a_lost_job_is_found(self) -> None:
        plan, evidence = finished()
        evidence.ledger.publish("4", "emails.welcome")

        assert wrong(plan, evidence) == ["published = done + dead"]

    def test_a_dead_letter_that_is_not_there_is_found(self) -> None:
        plan, evidence = finished()

        assert wrong(plan, replace(evidence, dead_ids={"emails": ["4"]})) == ["emails.dead holds what died"]

    def test_a_job_that_is_dead_twice_is_found(self) -> None:
        plan, evidence = finished()

        assert wrong(plan, replace(evidence, dead_ids={"emails": ["3", "3"]})) == [
            "emails.dead holds what died"
        ]

    @pytest.mark.parametrize(
        ("change", "claim"),
        [
            ({"ready": {"emails": 1}}, "work queues are empty"),
            ({"delayed": 1}, "delay levels are empty"),
            ({"unrouted": 1}, "jobs.unrouted is empty"),
        ],
    )
    def test_what_is_left_in_a_queue_is_found(self, change: dict[str, Any], claim: str) -> None:
        plan, evidence = finished()

        assert wrong(plan, replace(evidence, holdings=replace(evidence.holdings, **change))) == [claim]

    def test_an_end_that_the_seed_does_not_foretell_is_found(self) -> None:
        plan, evidence = finished()
        plan.expected.dead = Counter(exhausted=1)

        assert wrong(plan, evidence) == ["dead, as the seed foretells"]

    def test_a_mail_that_did_not_arrive_is_found(self) -> None:
        plan, evidence = finished()

        assert wrong(plan, replace(evidence, message_ids=["<1@example.com>"])) == [
            "the mail server has each mail done"
        ]

    def test_an_order_that_stands_still_is_found(self) -> None:
        plan, evidence = finished()
        plan.orders.append("order-1")

        assert wrong(plan, replace(evidence, order_states={"paid": 1})) == ["the database has each order"]

    def test_metrics_that_miss_an_attempt_are_found(self) -> None:
        plan, evidence = finished()

        assert len(wrong(plan, replace(evidence, metrics=Counter()))) == 2


def summary(**changes: Any) -> Summary:
    plan, evidence = finished()
    evidence = replace(evidence, **changes)
    return Summary(
        seed=7,
        rabbitmq="4.3.6",
        by_demo=3,
        ledger=evidence.ledger,
        checks=list(check(plan, evidence)),
        duration=12.34,
    )


class TestSummary:
    def test_as_json_it_has_the_counts(self) -> None:
        found = json.loads(json.dumps(summary().as_dict()))

        assert found["agrees"] is True
        assert (found["published"], found["done"], found["dead"], found["retried"]) == (3, 2, 1, 0)
        assert found["dead_by_reason"] == {"rejected": 1}
        assert found["waits"] == {"count": 0, "sum": 0, "longest": 0}
        assert found["disagreements"] == []

    def test_as_json_it_names_what_disagrees(self) -> None:
        found = summary(message_ids=[]).as_dict()

        assert found["agrees"] is False
        assert [each["claim"] for each in found["disagreements"]] == ["the mail server has each mail done"]


def picture(**changes: Any) -> Picture:
    rows = [Row(queue="emails", ready=4, running=3, waiting=2, done=1, retried=6, dead=5)]
    return replace(
        Picture(
            elapsed=2.0, published=10, rows=rows, delayed=2, unrouted=0, began=NOW, retries=[], deaths=[]
        ),
        **changes,
    )


def event(fields: dict[str, Any]) -> Any:
    found = Ledger().read(fields, NOW + 1)
    assert found
    return found


class TestDisplay:
    def test_without_a_terminal_it_is_plain(self) -> None:
        assert isinstance(display_on(io.StringIO()), PlainDisplay)

    def test_plain_it_is_one_line_and_one_for_the_dead(self) -> None:
        stream = io.StringIO()
        display = display_on(stream)
        deaths = [event(dead("exhausted", id=id)) for id in "12"]
        display.show(picture(deaths=deaths))
        display.show(picture(deaths=deaths))

        counts, died, again = stream.getvalue().splitlines()
        assert counts.split()[2:4] == ["published", "10"]
        assert "ready   4  running   3  waiting   2  done   1  retried   6  dead   5" in counts
        assert died.strip() == "emails.welcome dead, exhausted: OSError: away (and 1 more)"
        assert again == counts

    @pytest.mark.parametrize("height", [24, 30, 60])
    def test_live_it_fits_the_terminal(self, height: int) -> None:
        console = Console(file=io.StringIO(), width=100, height=height)
        busy = picture(retries=[event(retried())] * 50, deaths=[event(dead())] * 50)
        busy = replace(busy, rows=[busy.rows[0]] * len(QUEUES))

        lines = [
            "".join(part.text for part in line).strip() for line in console.render_lines(draw(busy, height))
        ]

        assert len(lines) < height
        assert sum("attempt 1, again in 1s: OSError: away" in line for line in lines) >= 4
        assert sum("dead, exhausted: OSError: away" in line for line in lines) >= 4

    def test_an_error_of_a_stranger_moves_no_cursor(self) -> None:
        stream = io.StringIO()
        display_on(stream).tell(event(dead() | {"error": "a\x1b[2Jb\nc"}))

        assert "\x1b" not in stream.getvalue()
        assert len(stream.getvalue().splitlines()) == 1

    def test_what_disagrees_is_said(self) -> None:
        stream = io.StringIO()
        display_on(stream).sum_up(summary(message_ids=[]))

        assert "WRONG: the mail server has each mail done" in stream.getvalue()
        assert "agree (" not in stream.getvalue()


def test_metrics_are_summed_by_what_matters() -> None:
    found = read_metrics(
        "# HELP brokerjobs_jobs_finished_total Attempts by how they ended.\n"
        'brokerjobs_jobs_finished_total{job_name="a.b",outcome="dead",queue="a"} 2.0\n'
        'brokerjobs_jobs_finished_total{job_name="a.c",outcome="dead",queue="a"} 1.0\n'
        'brokerjobs_jobs_in_progress{queue="a"} 4.0\n'
    )

    assert found["brokerjobs_jobs_finished_total", "dead"] == 3
    assert found["brokerjobs_jobs_in_progress", "a"] == 4
