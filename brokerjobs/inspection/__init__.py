"""What the queues hold now, how they move, and who works on them."""

from brokerjobs.inspection.course import Course, Flow, Look
from brokerjobs.inspection.snapshot import Counts, Level, Snapshot
from brokerjobs.inspection.standing import Standing, standings
from brokerjobs.inspection.watch import Watch

__all__ = [
    "Counts",
    "Course",
    "Flow",
    "Level",
    "Look",
    "Snapshot",
    "Standing",
    "Watch",
    "standings",
]
