"""How a run came through: when throughput was back after healing, and what its processes had gathered."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable

from tests.chaos.history import NEVER, History, Sample

WINDOW = 3.0  # seconds over which throughput is counted
STEP = 0.5
SHARE = 0.8
DEADLINE = 60.0

# How much more than in the calm before: thread pools fill up late, a log file may be open, caches warm up.
MORE_THREADS = 12
MORE_DESCRIPTORS = 12 + 2 * 4 * 3  # each queue may isolate suspects in up to four children, which stay
MORE_TASKS = 20
MORE_MEMORY = 64 * 1024 * 1024
SETTLING = 5.0  # seconds after the load ended until processes are compared


def recovery(history: History) -> tuple[float | None, list[str]]:
    """Seconds from healing until throughput was back to 80 %, and what is wrong with that.

    None where there was no calm before, no fault, or not enough load after it to tell.
    """
    began, ended = history.calm
    if not history.faults or ended - began < WINDOW:
        return None, []
    ends = sorted(run.finished for run in history.runs if run.succeeded)

    def per_second(since: float, until: float) -> float:
        return (bisect_left(ends, until) - bisect_left(ends, since)) / (until - since)

    wanted = SHARE * per_second(began, ended)
    until = min(history.loaded_until, ends[-1] if ends else 0.0)
    at = history.healed
    while at + WINDOW <= until and at <= history.healed + DEADLINE:
        if per_second(at, at + WINDOW) >= wanted:
            return round(at - history.healed, 1), []
        at += STEP
    if at - history.healed < DEADLINE and history.loaded_until != NEVER:
        return None, [f"load ended before throughput was back to {wanted:.0f} jobs/s"]
    return None, [f"throughput was not back to {wanted:.0f} jobs/s within {DEADLINE:g} s"]


def growth(history: History) -> list[str]:
    """What each process that lived through all faults holds more of than before them."""
    if not history.faults:
        return []
    by_process: dict[str, list[Sample]] = defaultdict(list)
    for sample in history.samples:
        by_process[sample.process].append(sample)
    return [text for samples in by_process.values() for text in _grown(samples, history)]


def _grown(samples: list[Sample], history: History) -> Iterable[str]:
    samples = sorted(samples, key=lambda sample: sample.at)
    before = [sample for sample in samples if sample.at <= history.calm[1]]
    after = [sample for sample in samples if sample.at >= history.loaded_until + SETTLING]
    if not before or not after:
        return
    first, last = before[-1], after[-1]
    for what, more in (
        ("threads", MORE_THREADS),
        ("descriptors", MORE_DESCRIPTORS),
        ("memory", MORE_MEMORY),
        ("tasks", MORE_TASKS),
    ):
        was, now = getattr(first, what), getattr(last, what)
        if was is not None and now is not None and now > was + more:
            yield f"{first.process} holds {now} {what}, {was} before the faults"
