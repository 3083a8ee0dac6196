"""What is measured: each section makes one table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from bench.adapter import Adapter, Style
from bench.contest import OutOfContest, Stage
from bench.figures import Column, Table

Figures: TypeAlias = Iterable[tuple[Column, float]]
Entry: TypeAlias = tuple[str, Callable[[], Figures]]  # a row, and what measures it once
REFERENCE = "brokerjobs"


@dataclass(frozen=True, slots=True)
class Bench:
    """All that a section needs.

    Args:
        stage: where.
        contestants: who takes part.
        rounds: how often each is measured.
        jobs: in one measurement.
        waiting: messages that lie in the queue meanwhile, where a section is about that.
        minutes: of a soak.
        say: is told what is being measured.
    """

    stage: Stage
    contestants: Sequence[type[Adapter]]
    rounds: int
    jobs: int
    waiting: int
    minutes: float
    say: Callable[[str], object]

    def measure(self, table: Table, entries: Sequence[Entry]) -> Table:
        """Measure each entry once a round, in turns, so that a slow minute of the machine meets all of them."""
        for at in range(self.rounds):
            for row, measurement in entries:
                self.say(f"{table.name}, round {at + 1} of {self.rounds}: {row}")
                try:
                    for column, value in measurement():
                        table.add(row, column, at, value)
                except OutOfContest as why:
                    table.note(f"{row}: {why}")
        return table

    @property
    def rivals(self) -> list[type[Adapter]]:
        """Who takes part everywhere: all but variants."""
        return [who for who in self.contestants if not who.only_drains]

    def can(self, style: Style) -> list[type[Adapter]]:
        """Who of them can run a worker in this style."""
        return [who for who in self.rivals if style in who.styles]


def explain(table: Table, who: Iterable[type[Adapter]]) -> None:
    """Say below the table how each is set, and what it does not guarantee."""
    for one in who:
        lacks = f"; not guaranteed: {one.lacks}" if one.lacks else ""
        fewer = f"; 1/{one.fewer} of the jobs" if one.fewer > 1 else ""
        table.note(f"{one.title}: {one.settings}{fewer}{lacks}.")
