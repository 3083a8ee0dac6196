"""The dashboard: what Grafana will read, and what a person needs to understand it."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from brokerjobs.metrics import Metrics
from tests.dashboards import DASHBOARD, dashboard, expressions, metrics_in, panels, rules, samples_of
from tests.pages import ROOT

PANELS = panels()
OURS = samples_of(Metrics().registry) | {rule.name for rule in rules("record")}


def title(panel: dict[str, Any]) -> str:
    return str(panel["title"])


def test_the_file_is_what_the_code_makes() -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "docker/grafana/overview.py"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert DASHBOARD.read_text() == made.stdout, "make dashboard"


def test_grafana_knows_each_key() -> None:
    register_default_plugins()
    read = Dashboard.from_json(dashboard())

    assert missing(dashboard(), json.loads(json.dumps(read, cls=JSONEncoder))) == []


def missing(given: Any, found: Any, path: str = "") -> list[str]:
    """The paths of what one has and the other has not, or has differently."""
    if isinstance(given, dict):
        if not isinstance(found, dict):
            return [path]
        return [lost for key in given for lost in missing(given[key], found.get(key), f"{path}/{key}")]
    if isinstance(given, list):
        if not isinstance(found, list) or len(given) != len(found):
            return [path]
        return [
            lost
            for number, (one, other) in enumerate(zip(given, found, strict=True))
            for lost in missing(one, other, f"{path}/{number}")
        ]
    return [] if given == found else [path]


def test_its_address_stays() -> None:
    board = dashboard()

    assert board["uid"] == "brokerjobs-overview"
    assert [variable["name"] for variable in board["templating"]["list"]] == [
        "datasource",
        "queue",
        "job_name",
    ]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)


@pytest.mark.parametrize("panel", PANELS, ids=title)
def test_a_panel_explains_itself(panel: dict[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]

    assert panel["description"].endswith(".")
    assert defaults["unit"]
    assert defaults["noValue"]


@pytest.mark.parametrize("panel", PANELS, ids=title)
def test_a_panel_takes_the_chosen_source_and_interval(panel: dict[str, Any]) -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert panel["datasource"] == chosen
    for target in panel["targets"]:
        assert target["datasource"] == chosen
        windows = re.findall(r"\[([^\]]+)\]", re.sub(r'"[^"]*"', "", target["expr"]))
        assert set(windows) <= {"$__rate_interval", "$__range", "1h"}
        assert target["refId"] in "ABCDEFGH"
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


@pytest.mark.parametrize("panel", PANELS, ids=title)
def test_a_legend_names_labels_that_the_expression_keeps(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        kept = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", target["expr"]))))
        recorded = {"queue"} if target["expr"].startswith("brokerjobs:") else set()
        assert set(re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", ""))) <= kept | recorded


@pytest.mark.parametrize(("name", "expression"), list(expressions()))
def test_an_expression_asks_for_what_there_is(name: str, expression: str) -> None:
    asked = metrics_in(expression)

    assert asked, name
    assert {metric for metric in asked if metric.startswith("brokerjobs")} <= OURS


def test_nothing_lies_over_another() -> None:
    places = [(panel["title"], panel["gridPos"]) for panel in dashboard()["panels"]]
    for (name, one), (other_name, other) in itertools.combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, f"{name} and {other_name}"
    assert all(place["x"] + place["w"] <= 24 for _, place in places)
