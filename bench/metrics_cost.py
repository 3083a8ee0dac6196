"""What metrics cost a worker: of each job that does nothing, and of each visit of Prometheus.

    python -m bench.metrics_cost

First without a broker, as `bench.hot_path` runs jobs: once as they are, once without counting, by turns; the difference
is what metrics cost. Then in a worker process beside RabbitMQ: that difference, as a share of all CPU time that such
a job takes there, is what metrics take of the speed, which the worker's CPU bounds. Exits with 1 when it is above the
limit.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import generate_latest

from bench.brokers import node
from bench.contest import Stage
from bench.contestants.ours import Ours
from bench.hot_path import Drain, cost
from bench.quick import NEWEST
from bench.sections import Bench
from bench.sections.drain import CPU, measure
from brokerjobs import lane
from brokerjobs.logs import hears_info
from brokerjobs.message import Message
from brokerjobs.metrics import OTHER, Metrics
from brokerjobs.node.private import PrivateNode
from brokerjobs.outcome import Outcome
from brokerjobs.records import Records
from brokerjobs.totals import Teller, Totals

LIMIT = 0.05  # of all that a job costs
ROUNDS = 40
JOBS = 400
COUNTED_JOBS = 200  # whose steps are counted
QUEUES, JOBS_EACH = 10, 3
JOBS_WAITING = 5_000  # in the queue, beside RabbitMQ
DRAINS = 5
VISITS = 50
INTERVAL = 15.0  # seconds between two visits of Prometheus


class Uncounted(Records):
    """Logs as always, and counts nothing."""

    def began(self, message: Message, job: str, at: float) -> None: ...

    def finished(
        self, message: Message, outcome: Outcome, *, job: str = OTHER, duration: float | None = None
    ) -> None:
        if hears_info():
            self._say(message, outcome, duration or 0.0)


@contextmanager
def uncounted() -> Iterator[None]:
    lane.Records = Uncounted  # type: ignore[attr-defined]
    try:
        yield
    finally:
        lane.Records = Records  # type: ignore[attr-defined]


def main() -> int:
    steps = cost(Drain, COUNTED_JOBS, steps=True).steps
    with uncounted():
        bare_steps = cost(Drain, COUNTED_JOBS, steps=True).steps
    print(f"steps of the interpreter for a job: {steps:,.0f}, {steps - bare_steps:,.0f} of them for metrics")
    with_metrics, bare = _least()
    metrics = with_metrics - bare
    print(f"CPU for a job without a broker, the least of {ROUNDS} rounds: {with_metrics * 1e6:.1f} µs, "
          f"{metrics * 1e6:.1f} µs of them for metrics")  # fmt: skip
    with node(NEWEST) as running:
        whole = _beside(running)
    share = metrics / whole
    print(f"CPU for a job beside RabbitMQ {'.'.join(map(str, running.version))}, the least of {DRAINS} drains: "
          f"{whole * 1e6:.1f} µs; metrics are {share:.1%} of it (limit {LIMIT:.0%})")  # fmt: skip
    for what, seconds in _visits():
        print(f"{what}, {QUEUES} queues of {JOBS_EACH} jobs: {seconds * 1e3:.1f} ms;"
              f" each {INTERVAL:g} s, {seconds / INTERVAL:.2%} of a core")  # fmt: skip
    return 0 if share < LIMIT else 1


def _beside(running: PrivateNode) -> float:
    """What a worker process uses for a job, connection and all."""
    stage = Stage(running.url)
    bench = Bench(stage, [], rounds=1, jobs=JOBS_WAITING, waiting=0, minutes=0, say=lambda _: None)
    return min(
        dict(measure(bench, Ours, stage.plan(Ours), JOBS_WAITING))[CPU] / 10_000 for _ in range(DRAINS)
    )


def _least() -> tuple[float, float]:
    """What disturbs a round only adds to it."""
    with_metrics = bare = 1.0
    for _ in range(ROUNDS):
        with_metrics = min(with_metrics, cost(Drain, JOBS).seconds)
        with uncounted():
            bare = min(bare, cost(Drain, JOBS).seconds)
    return with_metrics, bare


def _visits() -> Iterator[tuple[str, float]]:
    metrics = Metrics()
    metrics.prepare_worker("bench")
    for number in range(QUEUES):
        queue = f"queue{number}"
        metrics.prepare(queue, [f"{queue}.job{job}" for job in range(JOBS_EACH)], 10)
    yield "a visit", _time(lambda: generate_latest(metrics.registry))
    totals = Totals()
    for child in range(8):
        totals.take(child, Teller(metrics.registry).changes())
    yield "a visit to a parent of 8", _time(lambda: [list(family.samples) for family in totals.collect()])


def _time(visit: Callable[[], object]) -> float:
    best = 1.0
    for _ in range(VISITS):
        began = time.perf_counter()
        visit()
        best = min(best, time.perf_counter() - began)
    return best


if __name__ == "__main__":
    sys.exit(main())
