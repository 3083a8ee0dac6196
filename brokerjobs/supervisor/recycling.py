"""When a child is replaced before it ends by itself."""

from __future__ import annotations

from dataclasses import dataclass

from brokerjobs.supervisor.report import Report


@dataclass(frozen=True, slots=True)
class Recycling:
    """Limits beyond which a child is replaced; None is no limit.

    Args:
        jobs: attempts that it has run.
        memory: bytes that it occupies.
        threads: threads that it has left behind.
    """

    jobs: int | None = None
    memory: int | None = None
    threads: int | None = None

    def reason(self, report: Report) -> str | None:
        """Which limit the child has reached."""
        for name, limit, used in (
            ("jobs", self.jobs, report.finished),
            ("memory", self.memory, report.memory),
            ("threads", self.threads, report.abandoned),
        ):
            if limit is not None and used >= limit:
                return name
        return None
