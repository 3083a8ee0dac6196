"""How the cost of a drain grows: with what waits behind, with the size of bodies, with the number of queues."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from bench.adapter import Adapter, Plan
from bench.contest import START_TIMEOUT, Worker, fill
from bench.contestants.raw_pika import Pika
from bench.figures import Column, Table
from bench.sections import REFERENCE, Bench, Figures
from bench.sections.drain import MEMORY, SPEED, measure

SIZES = {
    "200 B": (150, 1),
    "10 kB": (9_900, 1),
    "100 kB": (99_900, 5),  # more than a worker holds at once, else its start is most of the figure
}  # characters, and how many times fewer jobs
QUEUES = (1, 10, 50)


def backlog(bench: Bench) -> Table:
    """A drain while many more wait in the same queue."""
    columns = {count: Column(f"{count:,} waiting, jobs/s") for count in (0, bench.waiting)}
    table = Table("backlog", f"{bench.jobs:,} no-op jobs while others wait behind them",
                  list(columns.values()), REFERENCE)  # fmt: skip
    who = [one for one in bench.can("native") if one.title == REFERENCE or one.title.startswith("raw")]
    bench.measure(table, [(one.title, partial(_behind, bench, one, columns)) for one in who])
    for one in who:
        bench.stage.empty(_long(bench, one))
    return table


def _long(bench: Bench, who: type[Adapter]) -> Plan:
    """Raw clients share a queue: to fill it is what takes time."""
    plan = bench.stage.plan(who, tag="backlog")
    return plan if who.title == REFERENCE else replace(plan, queues=("bench-raw-backlog",))


def _behind(bench: Bench, who: type[Adapter], columns: dict[int, Column]) -> Figures:
    yield columns[0], dict(measure(bench, who, bench.stage.plan(who), bench.jobs))[SPEED]
    plan = _long(bench, who)
    if (missing := bench.waiting + bench.jobs - bench.stage.waiting(plan)) > 0:
        bench.say(f"backlog: {who.title} waits for {missing:,} messages")
        fill(who if who.title == REFERENCE else Pika, plan, missing)
    with Worker(who, plan) as worker:
        worker.wait_done(bench.jobs, within=START_TIMEOUT)
        tally = worker.tally
    yield columns[bench.waiting], (tally.done - 1) / (tally.last - tally.first)


def body(bench: Bench) -> Table:
    """The same jobs with larger arguments."""
    columns = {size: Column(f"{size}, jobs/s") for size in SIZES}
    table = Table("body", f"{bench.jobs:,} no-op jobs and fewer of the large ones, by the size of their bodies",
                  list(columns.values()), REFERENCE)  # fmt: skip
    return bench.measure(
        table, [(one.title, partial(_sized, bench, one, columns)) for one in bench.can("native")]
    )


def _sized(bench: Bench, who: type[Adapter], columns: dict[str, Column]) -> Figures:
    for size, (text, fewer) in SIZES.items():
        found = measure(bench, who, bench.stage.plan(who), max(100, bench.jobs // fewer), text=text)
        yield columns[size], dict(found)[SPEED]


def queues(bench: Bench) -> Table:
    """One worker that consumes many queues."""
    columns = {count: Column(f"{count} queues, jobs/s") for count in QUEUES}
    table = Table("queues", f"{bench.jobs:,} no-op jobs, spread over the queues of one worker",
                  [*columns.values(), MEMORY], REFERENCE)  # fmt: skip
    who = [one for one in bench.can("native") if one.on == "rabbitmq"]
    return bench.measure(table, [(one.title, partial(_spread, bench, one, columns)) for one in who])


def _spread(bench: Bench, who: type[Adapter], columns: dict[int, Column]) -> Figures:
    for count, column in columns.items():
        found = dict(measure(bench, who, bench.stage.plan(who, queues=count), bench.jobs))
        yield column, found[SPEED]
    yield MEMORY, found[MEMORY]
