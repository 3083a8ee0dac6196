"""Jobs of a queue that the nemesis deletes."""

from __future__ import annotations

from brokerjobs import Consumer
from tests.chaos.consumers._steps import RETRY, step

consumer = Consumer("brief", retry=RETRY)


@consumer.job()
async def go(fails: int = 0) -> None:
    with step(fails):
        pass
