"""The live picture of `brokerjobs top`: as much of a look as the terminal has room for, trouble on top.

Whatever a colour says, a word says too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from brokerjobs.cli.output import lapse
from brokerjobs.cli.picture import Picture, plain
from brokerjobs.cli.section import GREY, LEAST, Cell, Column, Section, Shown, share
from brokerjobs.durations import text
from brokerjobs.inspection import Level, Standing
from brokerjobs.worker_state import RecentFailure, RunningJob, WorkerState

WEIGHTS = (4, 3, 2)  # of queues, workers and failures, where not all fit
WIDE = 110  # columns from which on more is shown
ID = 18  # characters of an id that tell it from others
UNKNOWN = "?"
TROUBLE = "bold red"
CARE = "yellow"


def draw(picture: Picture, *, width: int, height: int, head: str = "", alarm: str = "") -> RenderableType:
    """The picture in at most so many lines.

    Args:
        picture: what to show.
        width: of the terminal, in columns.
        height: likewise, in lines.
        head: what else the first line says.
        alarm: why the picture is old; it is grey then.
    """
    alarms = [Text(plain(alarm), TROUBLE)] if alarm else []
    levels = picture.look.snapshot.levels
    top = [
        _title(picture, head),
        _totals(picture),
        *([_levels(levels, width)] if levels else []),
        *(Text(plain(note), CARE) for note in picture.notes),
    ]
    for line in (*alarms, *top):
        line.no_wrap, line.overflow = True, "ellipsis"
    sections = [
        _queues(picture, width >= WIDE),
        _workers(picture, width >= WIDE),
        _failures(picture.failures, width >= WIDE),
    ]
    room = height - len(top) - len(alarms)
    sections = sections[: max(1, room // LEAST)]
    parts: list[RenderableType] = []
    given = share(room, [section.lines for section in sections], WEIGHTS[: len(sections)])
    for section, lines in zip(sections, given, strict=True):
        parts += section.cut_to(lines)
    return Group(*(Shown(line, False) for line in alarms), Shown(Group(*top, *parts), bool(alarm)))


# -- the first lines


def _title(picture: Picture, head: str) -> Text:
    clock = time.strftime("%H:%M:%S", time.localtime(picture.look.at))
    return Text.assemble(("brokerjobs top", "bold"), f"   {picture.address}   {clock}", (f"   {head}", GREY))


def _totals(picture: Picture) -> Text:
    look, all_counts = picture.look, [standing.counts for standing in picture.standings]
    flows = [standing.flow for standing in picture.standings]
    dead = sum(counts.dead for counts in all_counts)
    found: list[tuple[str, str, str]] = [
        ("ready", _count(sum(counts.ready or 0 for counts in all_counts)), "bold"),
        ("running", _count(sum(flow.running or 0 for flow in flows)), "bold"),
        ("waiting", _count(look.snapshot.waiting), "bold"),
        ("dead", _count(dead), CARE if dead else "bold"),
        ("workers", str(len(look.workers)), "bold"),
    ]
    if look.snapshot.unrouted:
        found.append(("unrouted", _count(look.snapshot.unrouted), CARE))
    arrivals = [flow.arrivals for flow in flows if flow.arrivals is not None]
    done = [flow.done for flow in flows if flow.done is not None]
    if arrivals:
        found.append(("in", f"{_rate(sum(arrivals))}/s", "bold"))
    if done:
        found.append(("done", f"{_rate(sum(done))}/s", "bold"))
    line = Text()
    for name, figure, style in found:
        line.append(f"{name} ").append(figure, style).append("  ")
    return line


def _levels(levels: Sequence[Level], width: int) -> Text:
    """How many wait in each delay level; the longer ones in one figure where there is no room for all."""
    for shown in range(len(levels), -1, -1):
        told = [(text(level.delay), level.waiting) for level in levels[:shown]]
        if rest := levels[shown:]:
            told.append((f"{text(rest[0].delay)} or more", sum(level.waiting for level in rest)))
        line = Text("waiting by delay level")
        for delay, waiting in told:
            line.append(f"  {delay} ").append(_count(waiting), "bold")
        if line.cell_len <= width:
            break
    return line


# -- queues


def _queues(picture: Picture, wide: bool) -> Section:
    right: list[Column] = [("ready", "right", None), ("run", "right", None)]
    right += [("unacked", "right", None), ("workers", "right", None)] if wide else []
    right += [(name, "right", None) for name in ("dead", "oldest", "in/s", "done/s")]
    right += [("fail/s", "right", None)] if wide else []
    columns = [("queue", "left", 1), *right, ("drain", "right", None), ("state", "left", None)]
    rows = [list(_queue_row(standing, wide)) for standing in picture.standings]
    return Section(columns, rows, "queues", "none: start a worker, or name queues")


def _queue_row(standing: Standing, wide: bool) -> Iterator[Cell]:
    counts, flow = standing.counts, standing.flow
    style = TROUBLE if standing.is_trouble else CARE if standing.word in ("paused", "growing", "dead") else ""
    yield Text(counts.queue, style)
    yield _number(counts.ready)
    yield UNKNOWN if flow.running is None else _of(flow.running, flow.slots)
    if wide:
        yield _number(counts.unacked)
        yield _number(counts.consumers)
    yield Text(_count(counts.dead), CARE if counts.dead else GREY)
    yield UNKNOWN if flow.oldest is None else f"≤{lapse(flow.oldest)}" if flow.oldest else Text("0s", GREY)
    yield _rate_cell(flow.arrivals)
    yield _rate_cell(flow.done)
    if wide:
        yield _rate_cell(flow.failed, TROUBLE)
    yield _drain(flow.drain)
    yield Text(standing.word or "ok", style or GREY)


def _number(count: int | None) -> Cell:
    return UNKNOWN if count is None else Text(_count(count), "" if count else GREY)


def _count(count: int) -> str:
    for size, unit in (1_000_000, "M"), (1_000, "k"):
        if count >= 100 * size:
            return f"{count // size}{unit}"
    return str(count)


def _of(running: int, slots: int | None) -> Cell:
    return Text(f"{running}/{slots}" if slots else str(running), "" if running else GREY)


def _rate(value: float) -> str:
    return f"{value:.1f}" if 0 < value < 10 else f"{value:.0f}" if value < 10_000 else f"{value / 1000:.0f}k"


def _rate_cell(value: float | None, style: str = "") -> Cell:
    return UNKNOWN if value is None else Text(_rate(value), style if value else GREY)


def _drain(value: float | None) -> Cell:
    if value is None:
        return UNKNOWN
    if math.isinf(value):
        return Text("∞", TROUBLE)
    return Text(lapse(value), "" if value else GREY)


# -- workers


def _workers(picture: Picture, wide: bool) -> Section:
    look = picture.look
    shown = {standing.counts.queue for standing in picture.standings}
    columns: list[Column] = [("worker", "left", 2), ("run", "right", None)]
    columns += [("queues", "left", 2)] if wide else []
    columns += [("job", "left", 3), ("id", "left", None), ("try", "right", None), ("for", "right", None)]
    rows, more = [], []
    for state in sorted(look.workers, key=lambda state: (not look.is_silent(state.worker), *_calm(state))):
        if not shown.isdisjoint(state.queues):
            first, *others = _worker_rows(picture, state, wide)
            rows.append(first)
            more.append(others)
    if sum(map(len, more)) + len(rows) <= 40:  # each job below its worker, where that is not too long to read
        rows = [row for first, others in zip(rows, more, strict=True) for row in (first, *others)]
    return Section(columns, rows, "workers or jobs", "none has answered")


def _calm(state: WorkerState) -> tuple[bool, float, str]:
    began = state.running[0].began if state.running else math.inf
    return not state.paused, began, state.worker


def _worker_rows(picture: Picture, state: WorkerState, wide: bool) -> Iterator[list[Cell]]:
    slots = sum(work.slots for work in state.work.values())
    queues = [" ".join(state.queues)] if wide else []
    start: list[Cell] = [state.worker, _of(len(state.running), slots), *queues]
    at = picture.look.at
    told = list(_word_of(picture, state))
    for words in told[:1] or (
        [] if state.running else [Text(f"idle: {plain(' '.join(state.queues))}", GREY)]
    ):
        yield [*start, words, "", "", ""]
        start = ["", "", *("" for _ in queues)]
    for job in state.running:
        yield [*start, *_job(job, at, wide)]
        start = ["", "", *("" for _ in queues)]


def _word_of(picture: Picture, state: WorkerState) -> Iterator[Text]:
    """What is wrong with a worker."""
    if picture.look.is_silent(state.worker):
        yield Text(f"no answer for {lapse(picture.look.at - picture.look.heard[state.worker])}", TROUBLE)
    for queue, whys in state.paused.items():
        for who, why in whys.items():
            yield Text(plain(f"{queue} paused by {who}: {why}"), CARE)


def _job(job: RunningJob, at: float, wide: bool) -> list[Cell]:
    id = job.id if wide and len(job.id) <= 36 else job.id[:ID]
    return [job.job, id, Text(str(job.attempt), CARE if job.attempt > 1 else ""), lapse(at - job.began)]


# -- failures


def _failures(failures: Sequence[RecentFailure], wide: bool) -> Section:
    columns: list[Column] = [
        ("failed", "left", None), ("job", "left", 2), ("id", "left", None), ("attempt", "left", None),
        ("error", "left", 4),
    ]  # fmt: skip
    rows: list[list[Cell]] = [
        [
            _clock(failure.at),
            failure.job,
            failure.id if wide and len(failure.id) <= 36 else failure.id[:ID],
            Text(
                plain(f"{failure.outcome} {failure.attempt}"), TROUBLE if failure.outcome == "dead" else CARE
            ),
            failure.error,
        ]
        for failure in failures
    ]
    return Section(columns, rows, "failures", "none lately")


def _clock(at: float) -> str:
    try:
        return time.strftime("%H:%M:%S", time.localtime(at))
    except (ValueError, OverflowError, OSError):  # a stranger's
        return UNKNOWN
