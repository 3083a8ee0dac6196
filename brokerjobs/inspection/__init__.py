"""What the queues hold now."""

from brokerjobs.inspection.snapshot import Counts, Level, Snapshot, snapshot

__all__ = ["Counts", "Level", "Snapshot", "snapshot"]
