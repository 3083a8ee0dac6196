"""What a child tells its parent, once a second: one JSON object a line. The parent has one word only: `drain`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from brokerjobs.totals import Changes

DRAIN = b"drain\n"
INTERVAL = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class Report:
    """How a child does.

    Args:
        consuming: whether it has begun to consume; it stays true while a lost connection is made anew.
        finished: attempts that have ended since its start.
        running: jobs that run now.
        abandoned: threads that it has left behind.
        memory: bytes that it occupies.
        metrics: what has changed since its last report.
        status: what it would answer to `/status`.
    """

    consuming: bool = False
    finished: int = 0
    running: int = 0
    abandoned: int = 0
    memory: int = 0
    metrics: Changes = ()
    status: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stands_still(self) -> float:
        """Seconds since its event loop turned."""
        return float(self.status.get("stands_still", 0.0))

    @property
    def line(self) -> bytes:
        return json.dumps(asdict(self), separators=(",", ":")).encode() + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Report:
        """The report in a line; what it does not know it passes over: a child may be of a newer version.

        Raises:
            ValueError: it is no report.
        """
        said = json.loads(line)
        if not isinstance(said, dict):
            raise ValueError("a report is an object")  # noqa: TRY004  (as for what is no JSON)
        known = {field.name for field in fields(cls)}
        report = cls(**{name: value for name, value in said.items() if name in known})
        if not isinstance(report.status, dict) or report.stands_still < 0:
            raise ValueError("its status is none")
        return report
