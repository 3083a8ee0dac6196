"""Prometheus' own checks of what it is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dashboards import CASES, PROMETHEUS, RULES
from tests.foreign import prometheus


def test_configuration_is_one() -> None:
    prometheus("promtool").run("check", "config", str(PROMETHEUS / "prometheus.yml"))


def test_rules_are_rules() -> None:
    prometheus("promtool").run("check", "rules", *map(str, RULES))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_rules_give_what_the_cases_say(path: Path) -> None:
    prometheus("promtool").run("test", "rules", str(path))
