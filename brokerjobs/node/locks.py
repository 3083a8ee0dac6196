"""File locks that say whether somebody is alive: the kernel drops them when the holder dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from brokerjobs.node.waiting import wait_until


def is_locked(path: Path) -> bool:
    """True while somebody holds the exclusive lock of this file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(fd)


@contextmanager
def locked(path: Path, *, timeout: float, on_wait: Callable[[], object] = lambda: None) -> Iterator[int]:
    """Hold the exclusive lock of this file (created if missing); gives its file descriptor.

    A child process that inherits the descriptor keeps the lock when this block ends.

    Args:
        path: the file.
        timeout: seconds to wait for the lock.
        on_wait: called once if somebody else holds it.

    Raises:
        TimeoutError: somebody else still holds it.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _try(fd):
            on_wait()
            if not wait_until(lambda: _try(fd), timeout=timeout):
                raise TimeoutError(f"{path} is still locked after {timeout:.0f} s")
        yield fd
    finally:
        os.close(fd)


def _try(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
