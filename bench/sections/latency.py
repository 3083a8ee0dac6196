"""From the send to the start of the job."""

from __future__ import annotations

import itertools
from functools import partial

from bench.adapter import Adapter, Order
from bench.contest import START_TIMEOUT, Worker, send
from bench.figures import Column, Table, percentile
from bench.sections import REFERENCE, Bench, Figures

WARM_UP = 50
IDLE = 200
RATE, AT_RATE = 200.0, 400
COLUMNS = {
    ("idle", 0.5): Column("idle p50 ms", 2),
    ("idle", 0.99): Column("idle p99 ms", 2),
    ("rate", 0.5): Column(f"{RATE:.0f}/s p50 ms", 2),
    ("rate", 0.99): Column(f"{RATE:.0f}/s p99 ms", 2),
}


def latency(bench: Bench) -> Table:
    """One sender that waits for each confirm, one worker; at a rate the clock runs from when a job was due."""
    table = Table("latency", f"{IDLE} jobs 10 ms apart, and {AT_RATE} at {RATE:.0f} a second",
                  list(COLUMNS.values()), REFERENCE)  # fmt: skip
    who = [one for one in bench.can("native") if "each" in one.sends]
    return bench.measure(table, [(one.title, partial(_round, bench, one)) for one in who])


def _round(bench: Bench, who: type[Adapter]) -> Figures:
    idle = Order(how="each", count=IDLE, pause=0.01)
    parts = dict(
        zip(
            ("idle", "rate"),
            waits(bench, who, idle, Order(how="each", count=AT_RATE, rate=RATE)),
            strict=True,
        )
    )
    for (part, share), column in COLUMNS.items():
        yield column, percentile(parts[part], share) * 1000


def waits(bench: Bench, who: type[Adapter], *orders: Order) -> list[list[float]]:
    """How long each job of each order waited for its start, seconds; one worker runs all of them.

    Raises:
        OutOfContest: some were not run.
    """
    plan = bench.stage.plan(who)
    bench.stage.empty(plan)
    send(who, plan, Order(how="each", count=WARM_UP))
    done, ends = WARM_UP, [WARM_UP]
    with Worker(who, plan) as worker:
        worker.wait_done(WARM_UP, within=START_TIMEOUT)
        for order in orders:
            send(who, plan, order)
            done += order.count
            worker.wait_done(done)
            ends.append(done)
        found = worker.tally.waits
    return [found[begin:end] for begin, end in itertools.pairwise(ends)]
