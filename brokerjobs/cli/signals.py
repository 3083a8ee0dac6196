"""SIGTERM and Ctrl-C: the first lets a program finish, the second does not, and neither does its patience.

A thread listens, not the event loop, which a job may block. The handler itself only writes a byte: it may have
interrupted anything, also whoever holds a lock.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from brokerjobs.cli.exits import DRAIN_TIMEOUT, INTERRUPTED
from brokerjobs.logs import log

UNFINISHED = "unfinished jobs are delivered again"


def on_signals(
    first: Callable[[], object],
    second: Callable[[], object],
    *,
    patience: float | None = None,
    overdue: Callable[[], object] = lambda: None,
) -> None:
    """From now on a signal means this, on the running loop and its process.

    Args:
        first: for the first signal; called on the loop.
        second: for the next; called in a thread.
        patience: seconds that the first may take.
        overdue: called in a thread after that; the process should have ended.
    """
    loop = asyncio.get_running_loop()
    told, tell = socket.socketpair()

    def handle(*_: object) -> None:
        with suppress(OSError):
            tell.send(b"!")

    def listen() -> None:
        # Whatever the system prefers: only in the main thread does a signal interrupt a job that sleeps there.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        told.recv(1)
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(first)
        told.settimeout(patience)
        try:
            told.recv(1)
        except TimeoutError:
            overdue()
        else:
            second()

    threading.Thread(target=listen, name="brokerjobs-signals", daemon=True).start()
    for number in signal.SIGTERM, signal.SIGINT:
        signal.signal(number, handle)


def end_at_once() -> None:
    """End this process; the broker gives back what it held."""
    log.warning("ended at once", hint=UNFINISHED)
    sys.stderr.flush()
    os._exit(INTERRUPTED)


def end_stuck() -> None:
    """End this process although it does not come to an end: its loop is blocked, or a hook of its hangs."""
    log.error("worker stuck", hint=UNFINISHED)
    sys.stderr.flush()
    os._exit(DRAIN_TIMEOUT)
