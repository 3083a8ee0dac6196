"""One way to wait for something that sends no event: look, pause a moment, look again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_PAUSE = 0.05  # seconds


def wait_until(condition: Callable[[], bool], *, timeout: float) -> bool:
    """Wait until the condition holds; False if it still does not after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            return False
        pause.wait(_PAUSE)
    return True
