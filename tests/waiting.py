"""The one bounded poll: wait for a condition, fail when it does not come true in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

INTERVAL = 0.02  # seconds


def eventually(condition: Callable[[], bool], timeout: float = 45.0, what: str = "") -> None:
    """Return when the condition holds; raise AssertionError when it does not within the timeout in seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what or condition}")
        time.sleep(INTERVAL)  # noqa: TID251


async def eventually_async(condition: Callable[[], bool], timeout: float = 45.0, what: str = "") -> None:
    """`eventually`, on the event loop; the condition itself may block for a moment, in a thread."""
    deadline = time.monotonic() + timeout
    while not await asyncio.to_thread(condition):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what or condition}")
        await asyncio.sleep(INTERVAL)  # noqa: TID251
