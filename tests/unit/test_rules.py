"""Alerts and recording rules: each is tried, explained, and asks for what there is."""

from __future__ import annotations

import re

import pytest

from brokerjobs.cli import VERBS
from brokerjobs.metrics import Metrics
from tests.dashboards import Rule, cases, metrics_in, panels, rules, samples_of
from tests.pages import ROOT

ALERTS = rules("alert")
RECORDED = rules("record")
OURS = samples_of(Metrics().registry) | {rule.name for rule in RECORDED}
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()


def by_name(rule: Rule) -> str:
    return rule.name


@pytest.mark.parametrize("rule", ALERTS, ids=by_name)
def test_an_alert_says_what_to_do(rule: Rule) -> None:
    assert rule.labels["severity"] in ("critical", "warning")
    assert set(rule.annotations) == {"summary", "description", "runbook"}
    assert rule.annotations["runbook"] == f"docs/operations.md#{rule.name.lower()}"
    commands = re.findall(r"`brokerjobs (\w+)", rule.annotations["description"])
    assert set(commands) <= set(VERBS)
    assert "`" in rule.annotations["description"], "a command, or what to look for in the log"
    named = re.search(r"panels? ((?:\"[^\"]+\"(?: and )?)+)", rule.annotations["description"])
    titles = set(re.findall(r'"([^"]+)"', named[1])) if named else set()
    assert titles <= {panel["title"] for panel in panels()}


def test_each_alert_has_its_section() -> None:
    assert set(re.findall(r"^### (Brokerjobs\w+)$", OPERATIONS, re.MULTILINE)) == {
        rule.name for rule in ALERTS
    }


def test_each_recording_rule_is_listed() -> None:
    listed = set(re.findall(r"^\| `(brokerjobs:[\w:]+)`", OPERATIONS, re.MULTILINE))

    assert listed == {rule.name for rule in RECORDED}


@pytest.mark.parametrize("rule", ALERTS, ids=by_name)
def test_an_alert_is_tried_both_ways(rule: Rule) -> None:
    own = [case for case in cases() if f'alertname="{rule.name}"' in case["expr"]]

    fires = [sample["labels"] for case in own for sample in case["exp_samples"]]
    assert fires
    assert any(not case["exp_samples"] for case in own)
    told = set(re.findall(r"\$labels\.(\w+)", " ".join(rule.annotations.values())))
    for label in told - {"jobs_namespace"}:  # the empty one of most installations
        assert all(f"{label}=" in labels for labels in fires), label


@pytest.mark.parametrize("rule", RECORDED, ids=by_name)
def test_a_recording_rule_is_tried(rule: Rule) -> None:
    assert any(rule.name in case["expr"] and case["exp_samples"] for case in cases())


@pytest.mark.parametrize("rule", [*ALERTS, *RECORDED], ids=by_name)
def test_a_rule_asks_for_what_there_is(rule: Rule) -> None:
    assert {name for name in metrics_in(rule.expr) if name.startswith("brokerjobs")} <= OURS


def test_the_objective_is_a_bound_of_the_histogram() -> None:
    metrics = Metrics()
    metrics.wait.labels("emails")
    bounds = {sample.labels.get("le") for family in metrics.wait.collect() for sample in family.samples}

    asked = {le for rule in [*ALERTS, *RECORDED] for le in re.findall(r'le="([^"]+)"', rule.expr)}
    assert asked
    assert asked <= bounds
