"""One run from its start to its report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.chaos import leftovers
from tests.chaos.checker import Report, check
from tests.chaos.consumers._steps import MAX_ATTEMPTS
from tests.chaos.faults import KINDS
from tests.chaos.nemesis import Nemesis
from tests.chaos.plan import OK_SHARE, Plan
from tests.chaos.recovery import DEADLINE, WINDOW, recovery
from tests.chaos.stage import Stage, set_stage
from tests.waiting import eventually

WARMING_UP = 3.0  # seconds that a fresh load gets before it counts as normal
ENDING = 240.0  # seconds for all that was sent to end
LOOK = 0.5  # seconds between two looks

Say = Callable[[str], object]


def run(plan: Plan, *, folder: Path | None = None, say: Say = lambda _: None) -> Report:
    """Do it all: load, faults, healing, the end, the account."""
    with set_stage(plan, folder) as stage:
        say(f"seed {plan.seed}, RabbitMQ {stage.version}, journals in {stage.folder}")
        began = time.time() + WARMING_UP
        _load_until(stage, lambda: time.time() >= began + plan.calm)
        calm = began, time.time()
        nemesis = Nemesis(stage, say)
        _load_until(stage, lambda: _is_enough(stage, nemesis, began), nemesis)
        healed = time.time()
        if nemesis.kinds:
            nemesis.fire(KINDS["connections-closed"])  # what a failpoint left unsettled comes back
            _load_until(stage, lambda: _is_recovered(stage, calm, healed))
        stage.fleet.end("publisher")
        loaded_until = time.time()
        say(f"load ended: {_counts(stage)}")
        _wait_for_the_end(stage)
        codes = stage.fleet.end("worker")
        stage.look()
        found, unreadable = leftovers.read_all(stage.node.url, leftovers.queues(stage.node))
        history = stage.ledger.history(
            found, unreadable=unreadable, calm=calm, healed=healed, loaded_until=loaded_until
        )
        report = check(history, max_attempts=MAX_ATTEMPTS)
        report.required, report.not_run = nemesis.kinds, nemesis.not_run
        report.told, report.rabbitmq = Counter(stage.ledger.told), stage.version
        say(f"workers ended with {codes}")
        return report


def _load_until(stage: Stage, condition: Callable[[], bool], nemesis: Nemesis | None = None) -> None:
    while not condition():
        stage.look()
        if nemesis is not None and nemesis.kinds:
            nemesis.strike()
        else:
            time.sleep(LOOK)  # noqa: TID251  (a look now and then)


def _is_enough(stage: Stage, nemesis: Nemesis, began: float) -> bool:
    plan = stage.plan
    fired = all(nemesis.fired[kind] >= plan.rounds for kind in nemesis.kinds)
    return fired and stage.ledger.fates["ok"] >= plan.jobs and time.time() >= began + 60 * plan.minutes


def _is_recovered(stage: Stage, calm: tuple[float, float], healed: float) -> bool:
    now = time.time()
    if now > healed + DEADLINE + WINDOW:
        return True
    return recovery(stage.ledger.history(calm=calm, healed=healed, loaded_until=now))[0] is not None


def _wait_for_the_end(stage: Stage) -> None:
    """Until all that was sent has ended and nothing stirs; what does not end in time is the checker's to tell."""
    names = leftovers.queues(stage.node)
    deadline = time.time() + ENDING

    def is_over() -> bool:
        stage.look()
        ledger, now = stage.ledger, time.time()
        if now > deadline:
            return True
        due = (id for id, end in ledger.confirmed.items() if end == "done" and id not in ledger.done)
        is_silent = now > ledger.last_at + stage.plan.quiet
        return is_silent and next(due, None) is None and leftovers.waiting(stage.node.url, names) == 0

    eventually(is_over, timeout=2 * ENDING, what="the end of all jobs")


def _counts(stage: Stage) -> str:
    ledger = stage.ledger
    return f"{dict(ledger.fates)}, {len(ledger.done)} done, {dict(ledger.told)}"


def why_invalid(report: Report, plan: Plan) -> list[str]:
    """Why a run proves nothing, though it may have found nothing wrong."""
    reasons = []
    if report.ok_share < OK_SHARE:
        reasons.append(f"only {report.ok_share:.1%} of sends were confirmed")
    if report.done < report.jobs / 2:
        reasons.append("fewer than half of the jobs were done")
    reasons += [
        f"{kind} fired {report.faults[kind]} times, less than {plan.rounds}"
        for kind in report.required
        if report.faults[kind] < plan.rounds
    ]
    if report.required and not report.repeats.total():
        reasons.append("nothing was ever repeated: the faults hit nothing")
    return reasons


def as_json(report: Report, plan: Plan, invalid: list[str]) -> dict[str, Any]:
    """The last line of a run."""
    verdict = "failed" if report.violations else "invalid" if invalid else "passed"
    return {
        "verdict": verdict,
        "invalid": invalid,
        "seed": plan.seed,
        "rabbitmq": report.rabbitmq,
        **report.as_json(),
    }
