"""Journals: JSON lines on local disk, one file per process; each line is with the kernel before the next step.

So a process may be killed at any moment, and what it had begun is known. Journals never go through the broker.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER, NAME = "CHAOS_FOLDER", "CHAOS_NAME"


class Journal:
    """Writes lines; one write each, so that a reader never meets half of one that another line follows."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def note(self, event: str, **fields: Any) -> float:
        """Write a line, and give the time that stands in it."""
        at = time.time()
        line = json.dumps({"event": event, "at": at, **fields}, separators=(",", ":"))
        os.write(self._file, line.encode() + b"\n")
        return at


def of_this_process() -> Journal:
    """The journal of a process that the stage has started, in the folder that the environment names."""
    return Journal(path_of(Path(os.environ[FOLDER]), os.environ[NAME], os.getpid()))


def path_of(folder: Path, title: str, pid: int) -> Path:
    """Where a process writes its journal."""
    return folder / f"{title}-{pid}.jsonl"


class Tail:
    """Reads all journals and logs of a folder as they grow."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offsets: dict[Path, int] = {}

    def new(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Lines since the last call, each with the name of its file; a line that is being written comes later."""
        for path in sorted([*self._folder.glob("*.jsonl"), *self._folder.glob("*.log")]):
            with path.open("rb") as file:
                file.seek(self._offsets.get(path, 0))
                whole, newline, _ = file.read().rpartition(b"\n")
            self._offsets[path] = self._offsets.get(path, 0) + len(whole) + len(newline)
            for line in whole.splitlines():
                if line.startswith(b"{"):
                    yield path.stem, json.loads(line)
