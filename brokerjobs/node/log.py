"""A node's log, read for two things: that it is ready, and why it died."""

from __future__ import annotations

import re
from pathlib import Path

# Printed by every version since 3.0 when plugins and listeners are up, and by this node only. A
# probe of its port could meet somebody else there, and would leave warnings in the log.
_READY = " completed with "
_ERROR = re.compile(r"\[error\] <[\d.]+> ?(.*)")
_LINES = 12


class NodeLog:
    """What a node prints, start after start."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = 0

    def mark_start(self) -> None:
        """What follows belongs to a new start."""
        self._start = self.path.stat().st_size if self.path.exists() else 0

    def says_ready(self) -> bool:
        """True once the node has said so since its start."""
        return _READY in self._since_start()

    def last_words(self) -> str:
        """The first errors since its start, which name the cause; otherwise how the log ends."""
        lines = self._since_start().splitlines()
        errors = [found[1] for line in lines if (found := _ERROR.search(line)) and found[1].strip()]
        return "\n".join(errors[:_LINES] or lines[-_LINES:])

    def _since_start(self) -> str:
        with self.path.open("rb") as log:
            log.seek(self._start)
            return log.read().decode(errors="replace")
