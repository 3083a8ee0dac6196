"""What publishers send: jobs that succeed, fail, wait, ask to run later, are rejected, hang, each with its due end."""

from __future__ import annotations

import random
from dataclasses import dataclass

from brokerjobs.message import Message
from tests.chaos.consumers import brief, steady, swift
from tests.chaos.consumers._steps import MAX_ATTEMPTS
from tests.chaos.history import End


@dataclass(frozen=True, slots=True)
class Order:
    """One message to send.

    Args:
        queue: without the namespace.
        end: how it must end.
        delay: seconds asked for.
    """

    message: Message
    queue: str
    end: End
    delay: float = 0.0


def draw(rng: random.Random) -> Order:
    """A random order; most are plain."""
    share = rng.random()
    if share < 0.03:
        return Order(brief.go.message(fails=rng.choice((0, 0, 0, 1))), "brief", "done")
    if share < 0.035:
        fails = rng.choice((1, 2, MAX_ATTEMPTS))
        return Order(swift.hang.message(fails=fails), "swift", "dead" if fails == MAX_ATTEMPTS else "done")
    queue, job = rng.choice((("swift", swift.go), ("steady", steady.go)))
    delay = rng.choice((0.5, 1.0, 2.5)) if rng.random() < 0.04 else 0.0
    fails = rng.choices((0, 1, 2, MAX_ATTEMPTS, -1), (88, 6, 3, 2, 1))[0]
    later = rng.choice((1, 1, 2)) if rng.random() < 0.04 else 0
    rest = rng.choice((0.05, 0.2, 1.0, 2.0)) if rng.random() < 0.1 else 0.0
    options = job.options(priority=rng.randrange(10), delay=delay or None)
    message = options.message(fails=fails, later=later, rest=rest)
    return Order(message, queue, "done" if 0 <= fails < MAX_ATTEMPTS else "dead", delay)
