"""Tables of figures, for a terminal, for a page, and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from bench.figures import Column, Summary, Table


def show(table: Table, console: Console) -> None:
    """Print it."""
    drawn = RichTable(title=f"{table.name}: {table.title}", title_justify="left", box=box.SIMPLE_HEAD)
    for at, head in enumerate(_heads(table)):
        drawn.add_column(head, justify="right" if at else "left", overflow="fold")
    for row in _rows(table):
        drawn.add_row(*row)
    console.print(drawn)
    for note in table.notes:
        console.print(f"  {note}", highlight=False)


def markdown(table: Table) -> str:
    """It as Markdown."""
    heads = _heads(table)
    lines = [
        f"**{table.name}**: {table.title}",
        "",
        _line(heads),
        _line(["---", *["---:"] * (len(heads) - 1)]),
    ]
    lines += map(_line, _rows(table))
    lines += ["", *(f"{note}  " for note in table.notes)] if table.notes else []
    return "\n".join(lines).rstrip() + "\n"


def plain(tables: Sequence[Table]) -> dict[str, Any]:
    """Them as JSON: section, row, column, then median, low, high and ratio."""
    return {table.name: {row: dict(_figures(table, row)) for row in table.cells} for table in tables}


def _figures(table: Table, row: str) -> Iterator[tuple[str, dict[str, float]]]:
    for column in table.columns:
        found, ratio = table.of(row, column), table.ratio(row, column)
        if found is not None:
            figure = {"median": found.median, "low": found.low, "high": found.high}
            if ratio is not None:
                figure["ratio"] = ratio
            yield column.title, {name: round(value, 4) for name, value in figure.items()}


def _heads(table: Table) -> list[str]:
    return ["", *(column.title for column in table.columns)]


def _rows(table: Table) -> Iterator[list[str]]:
    for row in table.cells:
        yield [
            row,
            *(_cell(table.of(row, column), table.ratio(row, column), column) for column in table.columns),
        ]


def _cell(found: Summary | None, ratio: float | None, column: Column) -> str:
    if found is None:
        return "–"
    spread = (
        f" ({_number(found.low, column)}–{_number(found.high, column)})" if found.low < found.high else ""
    )
    return _number(found.median, column) + spread + (f" ×{ratio:.2f}" if ratio is not None else "")


def _number(value: float, column: Column) -> str:
    return f"{value:,.{column.digits}f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
