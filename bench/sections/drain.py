"""Emptying a queue that was filled before: from the first job's start to the last job's end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from bench.adapter import Adapter, Plan
from bench.contest import START_TIMEOUT, OutOfContest, Worker, fill
from bench.figures import Column, Table
from bench.sections import REFERENCE, Bench, Entry, Figures, explain

SPEED = Column("jobs/s")
CPU = Column("CPU s per 10,000", 2)
MEMORY = Column("PSS MiB")
SECONDS = Column("seconds", 2)
CONSUMERS = (1, 4, 16)


def measure(
    bench: Bench,
    who: type[Adapter],
    plan: Plan,
    count: int,
    *,
    text: int = 150,
    environment: Mapping[str, str] | None = None,
) -> Figures:
    """Fill, run a worker until all jobs have ended, see that nothing is left.

    Raises:
        OutOfContest: some were not run.
    """
    count = max(10, count // who.fewer)
    bench.stage.empty(plan)
    fill(who, plan, count, text=text)
    gated = {"BENCH_GATED": "1"} if plan.processes > 1 else {}
    try:
        with Worker(who, plan, **gated, **(environment or {})) as worker:
            if gated:
                worker.wait_processes(plan.processes)
                opened = worker.open_gate()
            else:
                worker.wait_done(1, within=START_TIMEOUT)
            seen, cpu = worker.done, worker.cpu()
            worker.wait_done(count)
            used, memory, tally = worker.cpu() - cpu, worker.pss(), worker.tally
        _see_empty(bench, plan)
    finally:
        bench.stage.empty(plan)
    since, counted = (opened, tally.done) if gated else (tally.first, tally.done - 1)
    yield SPEED, counted / (tally.last - since)
    yield SECONDS, tally.last - since
    if seen < count:  # else it was over before anybody looked
        yield CPU, used / (tally.done - seen) * 10_000
    yield MEMORY, memory


def _see_empty(bench: Bench, plan: Plan) -> None:
    """What was not acknowledged comes back when the worker has ended."""
    left = bench.stage.waiting(plan) if not plan.redis else 0
    if left:
        raise OutOfContest(f"{left:,} jobs were run and came back")


def _only(figures: Figures, table: Table) -> Iterator[tuple[Column, float]]:
    return ((column, value) for column, value in figures if column in table.columns)


def drain(bench: Bench) -> Table:
    """No-op jobs, each contestant the way that suits it best."""
    table = Table("drain", f"{bench.jobs:,} no-op jobs from a filled queue, one process, prefetch 200",
                  [SPEED, CPU, MEMORY], REFERENCE)  # fmt: skip
    who = [one for one in bench.contestants if "native" in one.styles]
    plans = {one: bench.stage.plan(one) for one in who}
    bench.measure(
        table, [(one.title, partial(_row, bench, one, plans[one], bench.jobs, table)) for one in who]
    )
    explain(table, who)
    return table


def drain_def(bench: Bench) -> Table:
    """No-op jobs that are plain functions."""
    table = Table("drain-def", f"{bench.jobs:,} no-op jobs that are plain functions, 8 threads, prefetch 200",
                  [SPEED, CPU, MEMORY], REFERENCE)  # fmt: skip
    entries: list[Entry] = []
    for one in bench.can("threads"):
        plan = bench.stage.plan(one, style="threads", at_once=8, prefetch=200)
        entries.append((one.title, partial(_row, bench, one, plan, bench.jobs, table)))
    return bench.measure(table, entries)


def io(bench: Bench) -> Table:
    """Jobs that wait for something."""
    count = min(2_000, bench.jobs)
    table = Table("io", f"{count:,} jobs that wait 50 ms; 200 coroutines, or else 50 threads, at once",
                  [SECONDS, CPU, MEMORY], REFERENCE)  # fmt: skip
    entries: list[Entry] = []
    for one in bench.rivals:
        style, at_once = ("native", 200) if one.coroutines else ("threads", 50)
        if style in one.styles:
            plan = bench.stage.plan(one, style=style, at_once=at_once)
            entries.append(
                (one.title, partial(_row, bench, one, plan, count, table, {"BENCH_SLEEP": "0.05"}))
            )
    return bench.measure(table, entries)


def cpu(bench: Bench) -> Table:
    """Jobs that compute, in two processes."""
    count = max(200, bench.jobs // 5)
    table = Table("cpu", f"{count:,} jobs that compute for about 5 ms, in two processes",
                  [SPEED, CPU, MEMORY], REFERENCE)  # fmt: skip
    entries: list[Entry] = []
    burn = {"BENCH_BURN": "100000"}
    for one in bench.can("processes"):
        plan = bench.stage.plan(one, style="processes", at_once=1, prefetch=4, processes=2)
        title = f"{one.title}, isolate=True" if one.title == REFERENCE else one.title
        entries.append((title, partial(_row, bench, one, plan, count, table, burn)))
        if one.title == REFERENCE:
            plan = bench.stage.plan(one, style="threads", at_once=1, prefetch=4, processes=2)
            entries.append((one.title, partial(_row, bench, one, plan, count, table, burn)))
    table.note(f"{REFERENCE}: two worker processes (-p 2), one thread each; isolate=True: one worker, whose two "
               "children run the jobs and can be killed.")  # fmt: skip
    return bench.measure(table, entries)


def scaling(bench: Bench) -> Table:
    """The same with one process and with two."""
    columns = {count: Column(f"-p {count}, jobs/s") for count in (1, 2)}
    table = Table("scaling", f"{bench.jobs:,} no-op jobs, one worker process and two, prefetch 200 each",
                  [*columns.values(), MEMORY], REFERENCE)  # fmt: skip
    return bench.measure(
        table, [(one.title, partial(_scaled, bench, one, columns, 200)) for one in bench.can("native")]
    )


def consumers(bench: Bench) -> Table:
    """One queue, from which many processes take."""
    columns = {count: Column(f"{count} consumers, jobs/s") for count in CONSUMERS}
    table = Table("consumers", f"{bench.jobs:,} no-op jobs of one queue, many worker processes, prefetch 20 each",
                  [*columns.values(), MEMORY], REFERENCE)  # fmt: skip
    who = [one for one in bench.can("native") if one.on == "rabbitmq"]
    return bench.measure(table, [(one.title, partial(_scaled, bench, one, columns, 20)) for one in who])


def _scaled(bench: Bench, who: type[Adapter], columns: dict[int, Column], at_once: int) -> Figures:
    for processes, column in columns.items():
        plan = bench.stage.plan(who, processes=processes, at_once=at_once)
        found = dict(measure(bench, who, plan, bench.jobs))
        yield column, found[SPEED]
    yield MEMORY, found[MEMORY]


def _row(
    bench: Bench,
    who: type[Adapter],
    plan: Plan,
    count: int,
    table: Table,
    environment: Mapping[str, str] | None = None,
) -> Iterator[tuple[Column, float]]:
    return _only(measure(bench, who, plan, count, environment=environment), table)
