"""The regression guard of the hot paths: brokerjobs beside a raw client, in under two minutes.

    python -m bench.quick

RABBITMQ chooses the versions, SECONDS how long each is measured. The last line is JSON: each ratio by its name, with
its floor. Exits with 1 when a floor is broken.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

from rich.console import Console

from bench import hot_path, machine, report
from bench.adapter import Adapter, Order
from bench.brokers import node
from bench.contest import OutOfContest, Sent, Stage, send
from bench.contestants.ours import Ours, OursAsync
from bench.contestants.raw_aio_pika import AioPika
from bench.contestants.raw_pika import PikaBlocking
from bench.figures import Column, Table, percentile
from bench.floors import IN_MEMORY, WITH_BROKER, Floor
from bench.sections import Bench
from bench.sections.drain import CPU, SPEED, measure
from bench.sections.latency import waits

Ratios: TypeAlias = Iterable[tuple[str, float]]  # by name, as in the floors

RATIO = Column("times as good as the raw client", 2)
FLOOR, GOAL = Column("floor", 2), Column("goal", 2)
NEWEST = "4.3"
SECONDS = 60.0  # of rounds beside each RabbitMQ; at least one round is taken
MEMORY_ROUNDS = 15
MEMORY_JOBS = 400
COUNTED_JOBS = 200  # whose steps are counted
JOBS = 5_000
SINGLE = 1_000  # sends, each confirm awaited
LATE = 150  # jobs whose latency is taken


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left running
    console = Console(soft_wrap=False, width=None if sys.stdout.isatty() else 120)
    os.environ["BENCH_PLAIN"] = "1"  # the same kind of queue for both
    seconds = float(os.environ.get("SECONDS") or SECONDS)
    found = {"in memory": judged(in_memory(), IN_MEMORY, console)}
    for version in (os.environ.get("RABBITMQ") or NEWEST).split():
        with node(version) as running:
            print(machine.line(running.version, [Ours, AioPika, PikaBlocking]))
            table = with_broker(Stage(running.url), seconds)
            found[".".join(map(str, running.version))] = judged(table, WITH_BROKER, console)
    print(json.dumps(found))
    return 0 if all(one["held"] for part in found.values() for one in part.values()) else 1


def judged(table: Table, floors: Mapping[str, Floor], console: Console) -> dict[str, dict[str, Any]]:
    """Show it with its floors; each ratio beside them. One that could not be taken counts as broken."""
    verdicts = {}
    for name, floor in floors.items():
        table.add(name, FLOOR, 0, floor.least)
        if floor.goal is not None:
            table.add(name, GOAL, 0, floor.goal)
        ratio = found.median if (found := table.of(name, RATIO)) else 0.0
        held = ratio >= floor.least
        verdicts[name] = {"ratio": round(ratio, 3), "floor": floor.least, "goal": floor.goal, "held": held}
        if not held:
            table.note(f"BROKEN: {name} is {ratio:.2f}, and its floor {floor.least:g}")
    report.show(table, console)
    sys.stdout.flush()
    return verdicts


def in_memory() -> Table:
    """Without a broker: the least that each round of both has cost."""
    table = _table("in memory", f"{MEMORY_ROUNDS} rounds of {MEMORY_JOBS:,} jobs in one process, no broker")
    for name, (ours, raw) in hot_path.PAIRS.items():
        for at in range(MEMORY_ROUNDS):
            ratio = hot_path.cost(raw, MEMORY_JOBS).seconds / hot_path.cost(ours, MEMORY_JOBS).seconds
            table.add(f"{name}, CPU", RATIO, at, ratio)
        if not ours.in_threads:
            steps = [hot_path.cost(path, COUNTED_JOBS, steps=True).steps for path in (raw, ours)]
            table.add(f"{name}, steps", RATIO, 0, steps[0] / steps[1])
    return table


def with_broker(stage: Stage, seconds: float) -> Table:
    """Processes beside a RabbitMQ, in rounds that take turns until time is up."""
    bench = Bench(stage, [], rounds=1, jobs=JOBS, waiting=0, minutes=0, say=lambda _: None)
    table = _table("with RabbitMQ", f"{JOBS:,} jobs in each of as many rounds as fit into {seconds:g} s")
    comparisons = [partial(one, bench) for one in (_drain, _publish, _send, _latency)]
    over, at = time.monotonic() + seconds, 0
    while not at or time.monotonic() < over:
        for comparison in comparisons:
            _compare(table, at, comparison)
        at += 1
    return table


def _compare(table: Table, at: int, comparison: Callable[[], Ratios]) -> None:
    try:
        for name, ratio in comparison():
            table.add(name, RATIO, at, ratio)
    except OutOfContest as why:
        table.note(f"round {at + 1}: {why}")


def _table(name: str, title: str) -> Table:
    return Table(name, title, [RATIO, FLOOR, GOAL], "")


def _drain(bench: Bench) -> Iterator[tuple[str, float]]:
    ours, raw = (dict(measure(bench, who, bench.stage.plan(who), bench.jobs)) for who in (Ours, AioPika))
    yield "drain, jobs/s", ours[SPEED] / raw[SPEED]
    if CPU in ours and CPU in raw:
        yield "drain, CPU", raw[CPU] / ours[CPU]


def _publish(bench: Bench) -> Iterator[tuple[str, float]]:
    order = Order("pipelined", bench.jobs)
    raw = _sent(bench, AioPika, order)
    for name, who in (("send_many", Ours), ("asend_many", OursAsync)):
        yield from _faster(name, _sent(bench, who, order), raw)


def _send(bench: Bench) -> Iterator[tuple[str, float]]:
    order = Order("each", SINGLE)
    yield from _faster("send", _sent(bench, Ours, order), _sent(bench, PikaBlocking, order))


def _latency(bench: Bench) -> Iterator[tuple[str, float]]:
    order = Order("each", LATE, pause=0.005)
    ours, raw = (percentile(waits(bench, who, order)[0], 0.5) for who in (Ours, AioPika))
    yield "latency, idle p50", raw / ours


def _sent(bench: Bench, who: type[Adapter], order: Order) -> Sent:
    plan = bench.stage.plan(who)
    try:
        return send(who, plan, order)
    finally:
        bench.stage.empty(plan)


def _faster(name: str, ours: Sent, raw: Sent) -> Iterator[tuple[str, float]]:
    yield f"{name}, messages/s", raw.seconds / ours.seconds
    yield f"{name}, CPU", raw.cpu / ours.cpu


if __name__ == "__main__":
    sys.exit(main())
