"""What child processes cost at their start, and whether a worker grows while it runs on."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import Event, Thread

from bench.adapter import Adapter, Order
from bench.brokers import TICKS, pss_mib
from bench.contest import START_TIMEOUT, OutOfContest, Worker, fill, send
from bench.figures import Column, Table, slope
from bench.sections import Bench, Figures

START = Column("start of a child, s", 2, compared=False)
PARENT = Column("parent, MiB", 1, compared=False)
CHILD = Column("each child, MiB", 1, compared=False)
FEW, MANY = 2, 4

SOAK_RATE = 200.0
SAMPLES = 60
PART = 60.0  # seconds that one sender sends
FIRST = Column("after a tenth", 1, compared=False)
LAST = Column("at the end", 1, compared=False)
GROWTH = Column("growth an hour", 1, compared=False)
KINDS = ("PSS MiB", "descriptors", "threads", "tasks")


def children(bench: Bench) -> Table:
    """Worker processes under a parent, idle."""
    who = next(one for one in bench.contestants if one.__name__ == "OursTelling")
    table = Table("children", f"`-p {FEW}` and `-p {MANY}`, idle: from the start of a child until it consumes; memory",
                  [START, PARENT, CHILD], "")  # fmt: skip
    return bench.measure(table, [("brokerjobs", partial(_children, bench, who))])


def _children(bench: Bench, who: type[Adapter]) -> Figures:
    totals, parents, starts = {}, [], []
    for count in (FEW, MANY):
        plan = bench.stage.plan(who, at_once=10, processes=count)
        fill(who, plan, 100)
        with Worker(who, plan) as worker:
            worker.wait_done(100, within=START_TIMEOUT)
            consuming = _wait_consuming(worker, count)
            if count == FEW:
                starts = [at - _born(pid) for pid, at in consuming.items()]
            totals[count] = worker.pss()
            parents.append(pss_mib(worker.pid))
    yield START, sum(starts) / len(starts)
    yield PARENT, parents[0]
    yield CHILD, (totals[MANY] - totals[FEW] - parents[1] + parents[0]) / (MANY - FEW)


def _wait_consuming(worker: Worker, count: int) -> dict[int, float]:
    """When each child said that it consumes, by its process id."""
    deadline, pause = time.monotonic() + START_TIMEOUT, Event()
    while time.monotonic() < deadline:
        found = {}
        for line in worker.log().splitlines():
            with suppress(ValueError, KeyError, TypeError):
                said = json.loads(line)
                if said["event"] == "consuming":
                    found[said["pid"]] = datetime.fromisoformat(said["timestamp"]).timestamp()
        if len(found) >= count:
            return found
        pause.wait(0.1)
    raise OutOfContest(f"not all of {count} children consumed: {worker.last_words()}")


def _born(pid: int) -> float:
    """When a process was started, seconds since the epoch (proc(5), field 22)."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / TICKS


def soak(bench: Bench) -> Table:
    """One worker at a steady rate, for long."""
    who = next(one for one in bench.contestants if one.__name__ == "Ours")
    plan = bench.stage.plan(who, tag="soak")
    table = Table("soak", f"{bench.minutes:g} minutes of {SOAK_RATE:.0f} jobs a second",
                  [FIRST, LAST, GROWTH], "")  # fmt: skip
    over = Event()
    sender = Thread(target=_send_until, args=(who, plan, bench.minutes * 60, over), daemon=True)
    samples: list[tuple[float, tuple[float, ...]]] = []
    with Worker(who, plan, BENCH_COUNT_TASKS="1") as worker:
        sender.start()
        worker.wait_done(1, within=START_TIMEOUT)
        began, every = time.monotonic(), bench.minutes * 60 / SAMPLES
        for number in range(SAMPLES):
            over.wait(max(0.0, began + (number + 1) * every - time.monotonic()))
            samples.append(((time.monotonic() - began) / 3600, _sample(worker)))
            bench.say(f"soak: {number + 1} of {SAMPLES}, {worker.done:,} jobs")
        over.set()
        sender.join()
        done = worker.done
    settled = samples[SAMPLES // 10 :]  # less what is only bought once
    for at, kind in enumerate(KINDS):
        hours, values = [hour for hour, _ in settled], [found[at] for _, found in settled]
        table.add(kind, FIRST, 0, values[0])
        table.add(kind, LAST, 0, values[-1])
        table.add(kind, GROWTH, 0, slope(hours, values))
    table.note(f"{done:,} jobs were run; growth is the slope of a line through {len(settled)} samples.")
    return table


def _send_until(who: type[Adapter], plan: object, seconds: float, over: Event) -> None:
    end = time.monotonic() + seconds
    while not over.is_set() and (left := end - time.monotonic()) > 0:
        count = max(1, int(SOAK_RATE * min(PART, left)))
        with suppress(OutOfContest):
            send(who, plan, Order(how="each", count=count, rate=SOAK_RATE))  # type: ignore[arg-type]


def _sample(worker: Worker) -> tuple[float, ...]:
    pids = worker.pids()
    counted = worker.folder / "tasks"
    return (
        worker.pss(),
        float(sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)),
        float(sum(len(os.listdir(f"/proc/{pid}/task")) for pid in pids)),
        float(counted.read_text() or 0) if counted.exists() else 0.0,
    )
