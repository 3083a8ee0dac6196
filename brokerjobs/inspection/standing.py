"""How each queue stands, in a word, and which of them needs a person first. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from brokerjobs.inspection.course import Flow, Look
from brokerjobs.inspection.snapshot import Counts

GROWS = 1.1  # times what is done must arrive
FAILS = 0.5  # of all that is done must fail
# From what most needs a person to what needs none.
WORDS = (
    "no worker",  # messages wait, and nobody consumes
    "stuck",  # messages wait, workers have free slots, and nothing starts
    "failing",  # half of all attempts or more
    "breaker",  # rests since its jobs failed one after another
    "broker",  # RabbitMQ has taken it from a worker
    "paused",
    "growing",  # more comes than is done
    "busy",  # nothing was done yet, as its jobs are long
    "dead",  # has dead letters
    "idle",  # nobody consumes, and nothing waits
    "undeclared",
    "",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One queue at one look.

    Args:
        counts: what it holds.
        flow: how it moves.
        word: one of WORDS.
    """

    counts: Counts
    flow: Flow
    word: str

    @property
    def is_trouble(self) -> bool:
        """Whether jobs do not run that should."""
        return WORDS.index(self.word) < WORDS.index("paused")


def standings(look: Look, flows: Mapping[str, Flow]) -> list[Standing]:
    """All queues of a look, what needs a person first."""
    found = [
        Standing(counts=counts, flow=flows[counts.queue], word=_word(look, counts, flows[counts.queue]))
        for counts in look.snapshot.queues
    ]
    return sorted(found, key=_urgency)


def _urgency(standing: Standing) -> tuple[int, float, int, str]:
    counts, drain = standing.counts, standing.flow.drain
    return (
        WORDS.index(standing.word),
        -drain if drain is not None else math.inf,
        -(counts.ready or 0),
        counts.queue,
    )


def _word(look: Look, counts: Counts, flow: Flow) -> str:
    if counts.ready is None:
        return "undeclared"
    paused = {who for state in look.on(counts.queue) for who in state.paused.get(counts.queue, ())}
    if counts.paused or paused:
        return "paused" if counts.paused or paused.isdisjoint(WORDS) else min(paused & {*WORDS})
    if not counts.consumers:
        return "no worker" if counts.ready else "dead" if counts.dead else "idle"
    if flow.done and flow.failed is not None and flow.failed >= FAILS * flow.done:
        return "failing"
    if counts.ready and flow.done == 0:
        return "busy" if flow.running else "stuck"
    if counts.ready and flow.done is not None and (flow.arrivals or 0.0) > GROWS * flow.done:
        return "growing"
    return "dead" if counts.dead else ""
