"""From journals to a history: matches what began with what ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from brokerjobs.cli.exits import DRAIN_TIMEOUT
from tests.chaos.history import NEVER, Fault, Found, History, Notice, Run, Sample, Send
from tests.chaos.journal import Tail

# Of a worker's own log, and of its parent's.
_TOLD = (
    "session ended",
    "queue lost",
    "settlement lost",
    "job released",
    "redelivery counted",
    "job absorbed",
    "job adopted",
)
_ENDED = "child ended"
_WELL = (0, DRAIN_TIMEOUT)  # codes of those that have given back what they had, and said so
_DEFECTS = ("run failed", "chores failed")


class Ledger:
    """All that the journals of a run say so far.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self._tail = Tail(folder)
        self._sends: dict[tuple[str, int], Send] = {}
        self._runs: dict[tuple[str, int], Run] = {}
        self._faults: dict[int, Fault] = {}
        self._notices: list[Notice] = []
        self._samples: list[Sample] = []
        self.confirmed: dict[str, str] = {}
        """The ids that must end, and how."""
        self.done: set[str] = set()
        self.fates: Counter[str] = Counter()
        self.told: Counter[str] = Counter()
        self.last_at = 0.0
        """When something was sent or ran last."""

    def read(self) -> None:
        """Take in what has been written since the last call."""
        for source, line in self._tail.new():
            if "at" in line:
                self._take(source, line)
            elif line.get("event") in _TOLD:
                self._notice(source, line)
            elif line.get("event") == _ENDED and line.get("code") not in _WELL:
                self._notice(source, {**line, "event": "died"})
            elif line.get("event") in _DEFECTS:
                self._notice(source, {**line, "event": "defect", "text": line["event"]})

    @property
    def faults(self) -> Sequence[Fault]:
        return list(self._faults.values())

    @property
    def runs(self) -> Sequence[Run]:
        return list(self._runs.values())

    @property
    def samples(self) -> Sequence[Sample]:
        return self._samples

    def history(self, found: Sequence[Found] = (), **times: Any) -> History:
        """All of it as one value."""
        return History(
            sends=list(self._sends.values()),
            runs=list(self._runs.values()),
            found=found,
            faults=self.faults,
            notices=self._notices,
            samples=self._samples,
            **times,
        )

    def _take(self, source: str, line: dict[str, Any]) -> None:
        event, at = line.pop("event"), line.pop("at")
        match event:
            case "invoke":
                number = line.pop("call")
                self._sends[source, number] = Send(invoked=at, **line)
            case "ok" | "refused" | "unknown":
                self._fate((source, line["call"]), event, at)
            case "start":
                number = line.pop("run")
                self._runs[source, number] = Run(worker=source.rpartition("-")[0], started=at, **line)
            case "finish":
                self._finish((source, line.pop("run")), at, line)
            case "on":
                effects = frozenset(line["effects"])
                self._faults[line["number"]] = Fault(
                    kind=line["kind"], began=at, ended=NEVER, target=line["target"], effects=effects
                )
            case "off":
                self._faults[line["number"]] = replace(self._faults[line["number"]], ended=at)
            case "died" | "failpoint" | "defect":
                worker = line.pop("worker", source.rpartition("-")[0])
                self._notices.append(
                    Notice(
                        worker=worker,
                        event=event,
                        at=at,
                        id=line.get("id", ""),
                        pid=line.get("pid", 0),
                        text=line.get("text", ""),
                    )
                )
            case "sample":
                self._samples.append(Sample(at=at, **line))
        if event in ("invoke", "start", "finish"):
            self.last_at = max(self.last_at, at)

    def _fate(self, key: tuple[str, int], fate: Any, at: float) -> None:
        send = self._sends[key] = replace(self._sends[key], fate=fate, ended=at)
        self.fates[fate] += 1
        if fate == "ok":
            self.confirmed[send.id] = send.end

    def _finish(self, key: tuple[str, int], at: float, line: dict[str, Any]) -> None:
        run = self._runs[key] = replace(self._runs[key], finished=at, **line)
        if run.succeeded:
            self.done.add(run.id)

    def _notice(self, source: str, line: dict[str, Any]) -> None:
        at = datetime.fromisoformat(line["timestamp"]).timestamp()
        self.told[line["event"]] += 1
        self._notices.append(
            Notice(
                worker=source,
                event=line["event"],
                at=at,
                id=line.get("id", ""),
                pid=line.get("pid", 0),
                text=line.get("text", ""),
            )
        )
