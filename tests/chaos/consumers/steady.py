"""Plain jobs, which run in threads."""

from __future__ import annotations

import time

from brokerjobs import Consumer
from tests.chaos.consumers._steps import RETRY, step

consumer = Consumer("steady", retry=RETRY)


@consumer.job()
def go(fails: int = 0, later: int = 0, rest: float = 0.0) -> None:
    with step(fails, later):
        time.sleep(rest)  # noqa: TID251  (this is the work)
