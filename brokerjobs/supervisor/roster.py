"""Which children there are, and what each has told of itself; whoever asks may be another thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brokerjobs.health import ChildHealth
from brokerjobs.supervisor.report import Report
from brokerjobs.supervisor.seat import Clock, Process


class Roster:
    """Of one parent.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told: dict[int, tuple[Mapping[str, Any], float]] = {}  # by their numbers

    def come(self, child: Process) -> None:
        self._told[child.pid] = {}, self._clock()

    def heard(self, child: Process, report: Report) -> None:
        self._told[child.pid] = report.status, self._clock()

    def gone(self, child: Process) -> None:
        self._told.pop(child.pid, None)

    @property
    def children(self) -> list[ChildHealth]:
        now = self._clock()
        return [ChildHealth(pid, said, now - at) for pid, (said, at) in list(self._told.items())]
