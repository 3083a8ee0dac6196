"""Publishing from one process."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from bench.adapter import Adapter, How, Order
from bench.contest import send
from bench.figures import Column, Table
from bench.sections import REFERENCE, Bench

COLUMNS: dict[How, Column] = {
    "each": Column("confirm awaited for each, messages/s"),
    "pipelined": Column("pipelined confirms, messages/s"),
    "unconfirmed": Column("without confirms, messages/s"),
}
CPU = Column("CPU s per 10,000, the fastest confirmed way", 2)
MORE = 4  # times as many where no confirm is awaited: a run of half a second tells little


def enqueue(bench: Bench) -> Table:
    """Messages of about 200 bytes, persistent, to one durable queue."""
    table = Table("enqueue", f"{bench.jobs * MORE:,} persistent messages of 200 bytes, one process",
                  [*COLUMNS.values(), CPU], REFERENCE)  # fmt: skip
    who = bench.rivals
    bench.measure(table, [(one.title, partial(_round, bench, one)) for one in who])
    return table


def _round(bench: Bench, who: type[Adapter]) -> Iterator[tuple[Column, float]]:
    plan = bench.stage.plan(who)
    for how in who.sends:
        count = bench.jobs // 5 if how == "each" else bench.jobs * MORE
        sent = send(who, plan, Order(how=how, count=count))
        bench.stage.empty(plan)
        yield COLUMNS[how], count / sent.seconds
        if how == "pipelined" or (how == "each" and "pipelined" not in who.sends):
            yield CPU, sent.cpu / count * 10_000
