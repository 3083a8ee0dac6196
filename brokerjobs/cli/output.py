"""Print results: JSON for programs, tables for people on a terminal, plain columns elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from brokerjobs.durations import text

Rows = Sequence[Sequence[object]]

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_json(value: Any, *, on_one_line: bool = False) -> None:
    indent = 2 if sys.stdout.isatty() and not on_one_line else None
    written = json.dumps(value, ensure_ascii=False, indent=indent, default=str)
    # What json leaves as it is may still move a terminal (U+009B) or have no encoding (a lone surrogate).
    click.echo(
        "".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in written)
    )


def print_table(
    columns: Sequence[str], rows: Rows, *, empty: str = "nothing", elastic: str | None = None
) -> None:
    """A table of rich on a terminal; tab-separated lines with a header elsewhere, for cut and awk.

    Args:
        columns: their headings.
        rows: a cell for each column.
        empty: printed on a terminal where there are no rows.
        elastic: on a terminal keep each row on one line, and cut this column where there is no room.
    """
    if not sys.stdout.isatty():
        click.echo("\t".join(columns))
        for row in rows:
            click.echo("\t".join(_plain(cell) for cell in row))
        return
    if not rows:
        click.echo(empty)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", expand=elastic is not None)
    for position, column in enumerate(columns):
        numeric = all(isinstance(row[position], int | float) for row in rows)
        table.add_column(
            column,
            justify="right" if numeric else "left",
            overflow="ellipsis" if elastic else "fold",
            no_wrap=elastic is not None,
            ratio=1 if column == elastic else None,
        )
    for row in rows:
        table.add_row(*(_safe(cell) for cell in row))
    Console().print(table)


def lapse(seconds: float) -> str:
    """How long something took or takes, as exactly as people care."""
    return text(round(max(0.0, seconds), 0 if seconds >= 10 else 1))


def _plain(cell: object) -> str:
    return "" if cell is None else printable(str(cell)).replace("\t", " ").replace("\n", " ")


def _safe(cell: object) -> str:
    from rich.markup import escape

    return "" if cell is None else escape(printable(str(cell)))


def printable(said: str) -> str:
    """Job arguments and errors are strangers' text: no control sequence of theirs reaches the terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else "�" for char in said)
