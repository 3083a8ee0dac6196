"""Arithmetic of a comparison: medians, spreads, percentiles, and ratios of what was measured in one round."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

Rounds = dict[int, float]  # what was measured, by round: one that failed is missing


@dataclass(frozen=True, slots=True)
class Summary:
    """Of some rounds."""

    median: float
    low: float
    high: float


def summary(rounds: Rounds) -> Summary | None:
    """The median and the spread; None when no round gave a figure."""
    values = list(rounds.values())
    if not values:
        return None
    return Summary(statistics.median(values), min(values), max(values))


def ratio(rounds: Rounds, reference: Rounds) -> float | None:
    """The median over the rounds of figure to reference: a slow minute of the machine slows both of a round.

    None when no round has both.
    """
    ratios = [value / reference[at] for at, value in rounds.items() if reference.get(at)]
    return statistics.median(ratios) if ratios else None


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values do not exceed."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(share * 1000) // 1000) - 1)]


def slope(at: Sequence[float], values: Sequence[float]) -> float:
    """How fast values grow: of the straight line that fits best."""
    return statistics.linear_regression(at, values).slope


@dataclass(frozen=True, slots=True)
class Column:
    """One thing that is measured.

    Args:
        title: with the unit.
        digits: after the point.
        compared: whether its ratio to the reference is shown.
    """

    title: str
    digits: int = 0
    compared: bool = True


@dataclass(slots=True)
class Table:
    """What one section has measured.

    Args:
        name: of the section.
        title: what was done, with the sizes.
        columns: what was measured.
        reference: the row that ratios are to.
    """

    name: str
    title: str
    columns: Sequence[Column]
    reference: str
    cells: dict[str, dict[str, Rounds]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, row: str, column: Column, at: int, value: float) -> None:
        """Enter what a round has measured."""
        self.cells.setdefault(row, {}).setdefault(column.title, {})[at] = value

    def note(self, text: str) -> None:
        """Say something below the table, once."""
        if text not in self.notes:
            self.notes.append(text)

    def of(self, row: str, column: Column) -> Summary | None:
        return summary(self.cells.get(row, {}).get(column.title, {}))

    def ratio(self, row: str, column: Column) -> float | None:
        """To the reference; None for the reference itself, and where nothing is compared."""
        if not column.compared or row == self.reference:
            return None
        reference = self.cells.get(self.reference, {}).get(column.title, {})
        return ratio(self.cells.get(row, {}).get(column.title, {}), reference)
