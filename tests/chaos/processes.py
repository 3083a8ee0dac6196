"""All processes of a run, also those that nobody waits for: known by the environment that each inherits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.journal import FOLDER, NAME


@dataclass(frozen=True, slots=True)
class Process:
    """One that lives.

    Args:
        title: of the member of the fleet that it belongs to.
        pid: its own.
        parent: the process that waits for it; another one once its own has died.
    """

    title: str
    pid: int
    parent: int


def processes(folder: Path) -> list[Process]:
    """Those whose journals are in this folder."""
    return [process for path in Path("/proc").glob("[0-9]*") for process in _read(path, str(folder))]


def _read(path: Path, folder: str) -> Iterator[Process]:
    with suppress(OSError):  # it has just ended
        env = dict(
            entry.partition("=")[::2] for entry in (path / "environ").read_text(errors="replace").split("\0")
        )
        if env.get(FOLDER) == folder:
            parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
            yield Process(title=env.get(NAME, ""), pid=int(path.name), parent=int(parent))
