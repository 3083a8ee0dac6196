"""What a child knows about itself."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from brokerjobs.metrics import Metrics
from brokerjobs.supervisor.report import Report
from brokerjobs.totals import Teller, total
from brokerjobs.vitals import Vitals


class Reporter:
    """Makes the reports of this process.

    Args:
        metrics: where its worker counts.
        vitals: of this process.
        with_metrics: whether the parent serves them.
    """

    def __init__(self, metrics: Metrics, vitals: Vitals, *, with_metrics: bool) -> None:
        self._metrics = metrics
        self._vitals = vitals
        self._teller = Teller(metrics.registry) if with_metrics else None
        self.is_consuming = False

    def report(self) -> Report:
        return Report(
            consuming=self.is_consuming,
            finished=total(self._metrics.finished),
            running=total(self._metrics.in_progress),
            abandoned=total(self._metrics.abandoned),
            memory=memory(),
            metrics=self._teller.changes() if self._teller else (),
            status=self._vitals.status,
        )


def memory() -> int:
    """Bytes that this process occupies (RSS); where the system has no /proc, the most that it ever did."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    return pages * os.sysconf("SC_PAGE_SIZE")
