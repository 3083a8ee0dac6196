"""The files that Prometheus and Grafana are given, as tests read them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml
from prometheus_client import CollectorRegistry

from tests.pages import ROOT

PROMETHEUS = ROOT / "docker" / "prometheus"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
CASES = sorted((ROOT / "tests" / "rules").glob("*.yml"))
DASHBOARD = ROOT / "docker" / "grafana" / "dashboards" / "brokerjobs-overview.json"


@dataclass(frozen=True)
class Rule:
    """An alert or a recording rule."""

    name: str
    expr: str
    labels: dict[str, str]
    annotations: dict[str, str]


def rules(kind: str) -> list[Rule]:
    """All rules of a kind: `alert` or `record`."""
    return [
        Rule(rule[kind], rule["expr"], rule.get("labels", {}), rule.get("annotations", {}))
        for path in RULES
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if kind in rule
    ]


@cache  # to read them takes longer than all that is done with them
def cases() -> list[dict[str, Any]]:
    """What promtool compares: an expression, and the samples that it must give."""
    return [
        case
        for path in CASES
        for test in yaml.safe_load(path.read_text())["tests"]
        for case in test["promql_expr_test"]
    ]


def dashboard() -> dict[str, Any]:
    found = json.loads(DASHBOARD.read_text())
    assert isinstance(found, dict)
    return found


def panels() -> list[dict[str, Any]]:
    """Those that show something: no heads of rows."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """The title of a panel, with one of its expressions."""
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def metrics_in(expression: str) -> set[str]:
    """The names of metrics and of recorded series in an expression."""
    without_strings = re.sub(r'"[^"]*"', '""', expression)
    return set(re.findall(r"\b(?:brokerjobs|rabbitmq)[_:][a-z0-9_:]+", without_strings))


def samples_of(registry: CollectorRegistry) -> set[str]:
    """The names of the series that these metrics become."""
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    return {
        family.name + ending for family in registry.collect() for ending in endings.get(family.type, ("",))
    }
