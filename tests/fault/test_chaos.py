"""Half a minute of chaos on each version: the long form is `make chaos`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import trial
from tests.chaos.plan import Plan
from tests.conftest import VERSIONS

FAULTS = ("worker-kill", "connections-closed", "failpoint-exit", "reset", "broker-kill")


@pytest.mark.broker
@pytest.mark.timeout(300)  # half a minute on a machine of one's own
@pytest.mark.parametrize("version", VERSIONS)
def test_nothing_is_lost_or_repeated_without_a_cause(version: str, tmp_path: Path) -> None:
    # With this seed the broker dies after the workers: no fault waits for one that finds no broker at its start.
    plan = Plan(
        seed=4, jobs=600, minutes=0.2, rounds=1, rabbitmq=version, faults=FAULTS,
        calm=4.0, pause=(0.5, 1.5), quiet=2.0, is_small=True,
    )  # fmt: skip
    said: list[str] = []
    report = trial.run(plan, folder=tmp_path, say=said.append)
    assert not report.violations, said
    assert not trial.why_invalid(report, plan), said
