"""Where the detached node's state lies, and whether it runs: two small files, no process started.

The node itself holds a lock on `node.lock` as long as it lives, through a descriptor it inherited.
So a crash, a kill -9 or a reboot leaves nothing that could be mistaken for a running node, and no
process number is ever trusted without the lock.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """What is known of the node that `brokerjobs broker start` left running."""

    url: str
    management_url: str
    prometheus_url: str
    version: str
    pid: int
    name: str
    folder: str
    log: str
    epmd_port: int
    started_at: float
    """Seconds since the epoch."""


def home() -> Path:
    """The folder of the detached node: below $XDG_STATE_HOME, by default ~/.local/state."""
    root = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(root).absolute() / "brokerjobs" / "broker"


def lock_path() -> Path:
    """Locked by the node while it lives."""
    return home() / "node.lock"


def running() -> State | None:
    """The detached node, if it runs."""
    if sys.platform == "win32":
        return None
    from brokerjobs.node.locks import is_locked  # needs fcntl, which Windows lacks

    try:
        return read() if is_locked(lock_path()) else None
    except (OSError, RuntimeError):  # no home, or one that is not ours
        return None


def running_url() -> str | None:
    """The AMQP URL of the detached node, if it runs: a file read and a lock tried, in 0.1 ms."""
    state = running()
    return state.url if state else None


def read() -> State | None:
    """What was written last, whether true or stale; None if nothing or nothing legible."""
    try:
        return State(**json.loads(_state_path().read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write(state: State) -> None:
    """Write it, whole or not at all."""
    unfinished = _state_path().with_suffix(".tmp")
    unfinished.write_text(json.dumps(asdict(state), indent=2) + "\n")
    unfinished.replace(_state_path())


def clear() -> None:
    """Forget what was written last."""
    _state_path().unlink(missing_ok=True)


def _state_path() -> Path:
    return home() / "node.json"
