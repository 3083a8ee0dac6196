"""Async jobs."""

from __future__ import annotations

import asyncio

from brokerjobs import Consumer
from tests.chaos.consumers._steps import RETRY, step

consumer = Consumer("swift", retry=RETRY)


@consumer.job()
async def go(fails: int = 0, later: int = 0, rest: float = 0.0) -> None:
    with step(fails, later):
        await asyncio.sleep(rest)  # noqa: TID251  (this is the work)


@consumer.job(timeout="0.4s")
async def hang(fails: int = 1) -> None:
    """Outrun the timeout at the first attempts."""
    with step(0) as attempt:
        await asyncio.sleep(60.0 if attempt <= fails else 0.0)  # noqa: TID251
