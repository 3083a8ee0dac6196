"""What a picture is made of: tables that share the lines of a terminal, and can be cut."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.style import Style
from rich.table import Table
from rich.text import Text

from brokerjobs.cli.picture import plain

LEAST = 3  # lines of a section: blank, heading, and one row
GREY = "dim"
# What a terminal without Unicode gets instead.
ASCII = str.maketrans({"≤": "<", "∞": "-", "…": "~", "·": "-", "�": "?"})
Cell = str | Text
Column = tuple[str, str, int | None]  # heading, justification, and share of the free width or None


def share(room: int, wants: Sequence[int], weights: Sequence[int]) -> list[int]:
    """How many lines each section gets: what it wants while there is room, then by its weight."""
    given, left, heavy = [0] * len(wants), room, sum(weights)
    for position in sorted(range(len(wants)), key=lambda position: wants[position] / weights[position]):
        given[position] = max(0, min(wants[position], left * weights[position] // heavy))
        left -= given[position]
        heavy -= weights[position]
    return given


class Section:
    """A table under a heading line, which can be cut to fewer lines.

    Args:
        columns: of the table.
        rows: cells.
        of: what the rows are, for the line that says how many are left out.
        empty: said where there are none.
    """

    def __init__(self, columns: Sequence[Column], rows: list[list[Cell]], of: str, empty: str) -> None:
        self._columns, self._rows, self._of, self._empty = columns, rows, of, empty

    @property
    def lines(self) -> int:
        """With the blank line before it and its heading."""
        return 2 + max(1, len(self._rows))

    def cut_to(self, lines: int) -> list[RenderableType]:
        """As much as fits into so many lines."""
        if lines < LEAST:
            return []
        if not self._rows:
            return [Text(), Text(self._columns[0][0].upper(), "bold"), Text(self._empty, GREY)]
        shown = self._rows if self.lines <= lines else self._rows[: max(1, lines - LEAST)]
        parts: list[RenderableType] = [Text(), self._table(shown)]
        if (left_out := len(self._rows) - len(shown)) and lines > LEAST:
            parts.append(Text(f"… {left_out} more {self._of}", GREY, no_wrap=True))
        return parts

    def _table(self, rows: list[list[Cell]]) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", expand=True)
        for position, (heading, justify, ratio) in enumerate(self._columns):
            table.add_column(
                heading if position else heading.upper(),
                justify="right" if justify == "right" else "left",
                ratio=ratio,
                no_wrap=True,
                overflow="ellipsis",
            )
        for row in rows:
            table.add_row(*(cell if isinstance(cell, Text) else Text(plain(cell)) for cell in row))
        return table


class Shown:
    """Grey where it is old, and in ASCII where the terminal has nothing else."""

    def __init__(self, inner: RenderableType, grey: bool) -> None:
        self._inner, self._grey = inner, grey

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._inner, options):
            text = segment.text.translate(ASCII) if options.ascii_only else segment.text
            yield segment._replace(text=text, style=Style(dim=True) if self._grey else segment.style)
