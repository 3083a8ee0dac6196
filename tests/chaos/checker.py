"""The account: every job that was sent, every run, everything found at the end, held against what was promised.

lost          a confirmed job is neither done nor dead nor anywhere
stuck         it still lies in a queue although all was quiet
phantom       something ran or was found that nobody sent
refused       all sends so far were refused, and the job was there all the same
unreadable    the broker cannot read a queue any more
both          a job is done and dead
wrong end     it is dead and should be done, or the other way round
early         it ran before its delay was over
attempts      it ran more often than its policy allows
unexplained   it came twice and no fault explains it
unrouted      it lies where nobody would ever run it
slow          after healing, throughput did not come back in time
growth        a process that lived through it all holds more than before
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tests.chaos.causes import Causes
from tests.chaos.history import NEVER, Found, History, Run, Send
from tests.chaos.recovery import growth, recovery

EARLY = 0.05  # seconds before the asked time that clocks may differ by


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise."""

    kind: str
    id: str
    text: str


@dataclass(slots=True, kw_only=True)
class Report:
    """What the checker found."""

    sends: Counter[str]
    """Jobs by what their senders know of them in the end, after so many `tries`."""
    jobs: int
    tries: int = 0
    runs: int = 0
    done: int = 0
    dead: int = 0
    recovered: int = 0
    excused: int = 0
    repeats: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    recovery_seconds: float | None = None
    late_ms: dict[str, float] = field(default_factory=dict)
    told: Counter[str] = field(default_factory=Counter)
    rabbitmq: str = ""
    required: tuple[str, ...] = ()
    not_run: tuple[str, ...] = ()
    violations: list[Violation] = field(default_factory=list)

    def count(self, kind: str) -> int:
        return sum(violation.kind == kind for violation in self.violations)

    @property
    def ok_share(self) -> float:
        return self.sends["ok"] / (self.jobs or 1)

    @property
    def explained(self) -> int:
        return self.repeats.total() - self.repeats["unexplained"]

    def as_json(self) -> dict[str, Any]:
        kinds = sorted({violation.kind for violation in self.violations})
        return {
            "jobs": self.jobs,
            "sends": {fate: self.sends[fate] for fate in ("ok", "unknown", "refused")},
            "tries": self.tries,
            "runs": self.runs,
            "done": self.done,
            "dead": self.dead,
            "lost": self.count("lost"),
            "phantom": self.count("phantom"),
            "repeats": {
                "explained": self.explained,
                "unexplained": self.repeats["unexplained"],
                "causes": {cause: n for cause, n in sorted(self.repeats.items()) if cause != "unexplained"},
            },
            "recovered": self.recovered,
            "excused": self.excused,
            "faults": dict(sorted(self.faults.items())),
            "not_run": self.not_run,
            "recovery_seconds": self.recovery_seconds,
            "late_ms": self.late_ms,
            "told": dict(sorted(self.told.items())),
            "violations": {kind: self.count(kind) for kind in kinds},
        }


@dataclass
class _Job:
    """All that is known of one id; its runs in the order of time."""

    sends: list[Send] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)

    @cached_property
    def turns(self) -> list[list[Run]]:
        """Its runs by turn; each turn but the first was asked for in the one before, by failing or to run later.

        A copy that nobody asked for is a repeat within the turn before: it was sent twice, or once more after it had
        met no queue.
        """
        copies: dict[tuple[int, int], list[Run]] = defaultdict(list)
        for run in self.runs:
            copies[run.attempt, run.hop].append(run)
        turns: list[list[Run]] = []
        for _, runs in sorted(copies.items()):
            if turns and not any(_asked_for(before, runs[0]) for before in turns[-1]):
                turns[-1] = sorted([*turns[-1], *runs], key=lambda run: run.started)
            else:
                turns.append(runs)
        return turns

    @property
    def fate(self) -> str:
        fates = {send.fate for send in self.sends}
        return "ok" if "ok" in fates else "refused" if fates == {"refused"} else "unknown"

    @property
    def maybe_queued_at(self) -> float:
        """From when on it may be in a queue: until then each send was refused, which says that it is not."""
        return min((send.invoked for send in self.sends if send.fate != "refused"), default=NEVER)

    @property
    def is_done(self) -> bool:
        return any(run.succeeded for run in self.runs)

    @property
    def dead(self) -> list[Found]:
        return [found for found in self.found if found.place == "dead"]


def check(history: History, *, max_attempts: int, absorbing: bool = True) -> Report:
    """Hold a history against the promises.

    Args:
        history: of the whole run.
        max_attempts: which no job may exceed.
        absorbing: whether workers recognise what they have run themselves.
    """
    jobs = _by_id(history)
    report = Report(
        sends=Counter(job.fate for job in jobs.values() if job.sends),
        tries=len(history.sends),
        jobs=sum(bool(job.sends) for job in jobs.values()),
        runs=len(history.runs),
        done=sum(job.is_done for job in jobs.values()),
        dead=sum(bool(job.dead) for job in jobs.values()),
        faults=Counter(fault.kind for fault in history.faults),
    )
    causes = Causes(history, absorbing=absorbing)
    lateness: list[float] = []
    for id, job in jobs.items():
        if not job.sends:
            report.violations.append(Violation("phantom", id, f"nobody sent it: {job.runs or job.found}"))
            continue
        report.violations += _ends(id, job, history, report)
        report.violations += _attempts(id, job, max_attempts)
        report.violations += _delays(id, job, lateness)
        report.violations += _repeats(id, job, causes, report)
    report.late_ms = _percentiles(lateness)
    report.violations += [
        Violation("defect", notice.id, f"{notice.worker}: {notice.text}")
        for notice in history.notices
        if notice.event == "defect"
    ]
    report.violations += [
        Violation("unreadable", "", f"{name}: {why}") for name, why in history.unreadable.items()
    ]
    report.recovery_seconds, slow = recovery(history)
    report.violations += [Violation("slow", "", text) for text in slow]
    report.violations += [Violation("growth", "", text) for text in growth(history)]
    return report


def _by_id(history: History) -> dict[str, _Job]:
    jobs: dict[str, _Job] = defaultdict(_Job)
    for send in history.sends:
        jobs[send.id].sends.append(send)
    for run in sorted(history.runs, key=lambda run: run.started):
        jobs[run.id].runs.append(run)
    for found in history.found:
        jobs[found.id].found.append(found)
    return jobs


def _ends(id: str, job: _Job, history: History, report: Report) -> Iterable[Violation]:
    fate, is_dead = job.fate, bool(job.dead)
    yield from _leftovers(id, job)
    began = min((run.started for run in job.runs), default=NEVER)
    if began < job.maybe_queued_at or (fate == "refused" and job.found):
        yield Violation("refused", id, f"its send was refused, yet it was there: {_story(job)}")
    if fate == "unknown" and (job.is_done or is_dead):
        report.recovered += 1
    if job.is_done and is_dead:
        yield Violation("both", id, f"it is done and dead ({job.dead[0].reason}): {_story(job)}")
    elif job.is_done or is_dead:
        yield from _wrong_end(id, job)
    elif fate == "ok" and not job.found:
        if _is_excused(job, history):
            report.excused += 1
        else:
            yield Violation("lost", id, f"it is neither done nor dead nor in a queue: {_story(job)}")


def _leftovers(id: str, job: _Job) -> Iterable[Violation]:
    for found in job.found:
        if found.place == "unrouted":
            yield Violation("unrouted", id, f"it lies in {found.queue}: {_story(job)}")
        elif found.place != "dead":
            yield Violation("stuck", id, f"it lies in {found.queue} although all was quiet: {_story(job)}")


def _wrong_end(id: str, job: _Job) -> Iterable[Violation]:
    end = "done" if job.is_done else "dead"
    if end != job.sends[0].end:
        reason = job.dead[0].reason if job.dead else ""
        yield Violation("wrong end", id, f"it is {end} {reason}: {_story(job)}")


def _is_excused(job: _Job, history: History) -> bool:
    """Whether it may have been in a queue that was deleted: that deletes its messages, and nobody promised else."""
    send = job.sends[0]
    return any(
        "delete" in fault.effects and fault.target == send.queue and send.invoked <= fault.ended
        for fault in history.faults
    )


def _attempts(id: str, job: _Job, most: int) -> Iterable[Violation]:
    highest = max((run.attempt for run in job.runs), default=0)
    if highest > most:
        yield Violation("attempts", id, f"attempt {highest} of {most}")


def _asked_for(before: Run, run: Run) -> bool:
    """Whether this run is what the other one asked for; only a failure spends an attempt."""
    return not before.succeeded and run.attempt == before.attempt + (not before.later)


def _delays(id: str, job: _Job, lateness: list[float]) -> Iterable[Violation]:
    for number, runs in enumerate(job.turns):
        due = _due(job, number)
        if due is None:
            continue
        first = runs[0].started
        if first < due - EARLY:
            yield Violation(
                "early", id, f"turn {number} began {due - first:.3f} s before it was due: {_story(job)}"
            )
        else:
            lateness.append(first - due)


def _due(job: _Job, number: int) -> float | None:
    """When a turn may begin at the earliest; None when nobody asked for a wait."""
    if number == 0:
        return min((send.invoked + send.delay for send in job.sends if send.delay), default=None)
    before = job.turns[number - 1]
    return min((run.finished + run.again_in for run in before if run.finished != NEVER), default=None)


def _repeats(id: str, job: _Job, causes: Causes, report: Report) -> Iterable[Violation]:
    before: list[Run] = []
    for runs in job.turns:
        parents = [run for run in before if _asked_for(run, runs[0])]
        for number, run in enumerate(runs[1:], 1):
            cause = causes.of_run(run, runs[:number], job.sends, parents)
            report.repeats[cause or "unexplained"] += 1
            if not cause:
                yield Violation("unexplained", id, f"attempt {run.attempt} ran again: {_story(job)}")
        before = runs
    for _ in job.dead[1:]:
        cause = causes.of_copy(NEVER, job.sends, before)
        report.repeats[cause or "unexplained"] += 1
        if not cause:
            yield Violation("unexplained", id, f"it is dead more than once: {_story(job)}")


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    if not ordered:
        return {}
    return {
        name: round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)
        for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    }


def _story(job: _Job) -> str:
    """All that befell it, in the order of time, for a person who must find out why."""
    zero = min(send.invoked for send in job.sends) if job.sends else 0.0
    lines = [
        (send.invoked, f"sent ({send.fate} at +{send.ended - zero:.2f}, end {send.end})")
        for send in job.sends
    ]
    for run in job.runs:
        again = ", redelivered" if run.redelivered else ""
        how = " later" if run.later else {None: "", True: " ok", False: " failed"}[run.succeeded]
        lines.append(
            (
                run.started,
                f"hop {run.hop} attempt {run.attempt} in {run.worker} ({run.pid}{again}) "
                f"until +{run.finished - zero:.2f}{how}",
            )
        )
    told = [f"+{at - zero:.2f} {text}" for at, text in sorted(lines)]
    told += [f"found in {found.queue} hop {found.hop} {found.reason}" for found in job.found]
    return f"[{zero:.2f}] " + "; ".join(told)
