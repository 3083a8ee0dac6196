"""What the person at the terminal sees: a live picture there, a line now and then anywhere else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TextIO

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from brokerjobs.demo.ledger import Event
from brokerjobs.demo.summary import Summary
from brokerjobs.durations import text

LIVE_INTERVAL = 0.25  # seconds between pictures
PLAIN_INTERVAL = 1.0  # seconds between lines
RECENT = 6  # retries in the picture, where there is room
DEATHS = 8  # dead letters, likewise
FRAME = 15  # lines of the picture besides those


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One queue: counts of jobs; `retried` counts retries."""

    queue: str
    ready: int
    running: int
    waiting: int
    done: int
    retried: int
    dead: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """How things stand.

    Args:
        elapsed: seconds since the first publish.
        published: jobs known so far.
        rows: one a queue.
        delayed: messages in the delay levels.
        unrouted: messages in `jobs.unrouted`.
        began: when the first job was published, seconds since the epoch.
        retries: the latest last.
        deaths: likewise.
    """

    elapsed: float
    published: int
    rows: Sequence[Row]
    delayed: int
    unrouted: int
    began: float
    retries: Sequence[Event]
    deaths: Sequence[Event]


class Display(Protocol):
    """Either kind."""

    interval: float

    def say(self, line: str) -> None:
        """A line that stays."""

    def show(self, picture: Picture) -> None:
        """How things stand now; called every `interval` seconds."""

    def tell(self, event: Event) -> None:
        """One event, as a line that stays."""

    def sum_up(self, summary: Summary) -> None:
        """The end of the picture, and the figures."""

    def close(self) -> None:
        """Leave the terminal as it was."""


def display_on(stream: TextIO) -> Display:
    """A live picture if this is a terminal that can show one, else plain lines."""
    console = Console(file=stream, highlight=False)
    if stream.isatty() and not console.is_dumb_terminal:
        return LiveDisplay(console)
    return PlainDisplay(Console(file=stream, highlight=False, soft_wrap=True))


class PlainDisplay:
    """A line a second, and one for what died meanwhile."""

    interval = PLAIN_INTERVAL

    def __init__(self, console: Console) -> None:
        self._console = console
        self._deaths = 0

    def say(self, line: str) -> None:
        self._console.print(Text(line))

    def show(self, picture: Picture) -> None:
        total = {
            name: sum(getattr(row, name) for row in picture.rows)
            for name in ("ready", "running", "waiting", "done", "retried", "dead")
        }
        counts = "  ".join(f"{name} {count:>3}" for name, count in total.items())
        self.say(f"{picture.elapsed:5.1f} s  published {picture.published:>3}  {counts}")
        died = picture.deaths[self._deaths :]
        self._deaths = len(picture.deaths)
        if died:
            more = f" (and {len(died) - 1} more)" if len(died) > 1 else ""
            self.say(f"         {_words(died[-1])}{more}")

    def tell(self, event: Event) -> None:
        self.say(_words(event))

    def sum_up(self, summary: Summary) -> None:
        _print_summary(self._console, summary)

    def close(self) -> None:
        pass


class LiveDisplay:
    """A picture that is drawn anew several times a second."""

    interval = LIVE_INTERVAL

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None

    def say(self, line: str) -> None:
        self._console.print(Text(line))

    def show(self, picture: Picture) -> None:
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(draw(picture, self._console.height), refresh=True)

    def tell(self, event: Event) -> None:
        self.say(_words(event))

    def sum_up(self, summary: Summary) -> None:
        self.close()
        _print_summary(self._console, summary)

    def close(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()


def draw(picture: Picture, height: int) -> Group:
    """The picture in at most so many lines, as long as there are about twenty."""
    room = height - FRAME
    recent = max(1, min(RECENT, room // 2))
    deaths = max(1, min(DEATHS, room - recent))
    head = Text.assemble(
        (f"{picture.elapsed:5.1f} s", "bold"), f"   {picture.published} jobs published",
        f"   {picture.delayed} in the delay levels   {picture.unrouted} unrouted",
    )  # fmt: skip
    return Group(
        Text(), head, _table(picture.rows),
        *_section("retries", picture.retries[-recent:], recent, picture.began),
        *_section("dead letters", picture.deaths[-deaths:], 0, picture.began),
    )  # fmt: skip


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    table.add_column("  queue", min_width=12)
    for name, style in _COLUMNS.items():
        table.add_column(name, justify="right", min_width=8, style=style)
    for row in rows:
        counts = (getattr(row, name) for name in _COLUMNS)
        table.add_row(f"  {row.queue}", *(str(count) if count else "[dim]·[/]" for count in counts))
    return table


_COLUMNS = {
    "ready": "",
    "running": "cyan",
    "waiting": "yellow",
    "done": "green",
    "retried": "yellow",
    "dead": "red",
}


def _section(title: str, events: Sequence[Event], height: int, began: float) -> list[Text]:
    blank = [Text()] * (height - len(events))
    return [Text(), Text(f"  {title}", "dim"), *(_event_line(event, began) for event in events), *blank]


def _event_line(event: Event, began: float) -> Text:
    return Text.assemble(
        (f"  {event.at - began:5.1f} s  ", "dim"), (_words(event), _STYLES[event.kind]),
        no_wrap=True, overflow="ellipsis",
    )  # fmt: skip


_STYLES = {"done": "green", "retried": "yellow", "dead": "red", "released": "yellow", "trouble": "bold red"}


def _words(event: Event) -> str:
    """One line: what became of which job, and why."""
    error = _printable(event.error.removeprefix("Reject: "))
    match event.kind:
        case "done":
            return f"{event.job} {event.id} done"
        case "retried":
            return f"{event.job} attempt {event.attempt}, again in {text(event.delay)}: {error}"
        case "dead":
            return f"{event.job} dead, {event.reason}: {error}"
        case "released":
            return f"{event.job} given back: {event.reason}"
    return error


def _printable(text: str) -> str:
    """An error may quote a stranger: no control sequence of theirs reaches the terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


def _print_summary(console: Console, summary: Summary) -> None:
    console.print()
    for name, figure, explanation in summary.lines():
        console.print(
            Text.assemble(f"  {name:<11}", (f"{figure:>6}", "bold"), (f"   {explanation}".rstrip(), "dim"))
        )
    console.print()
    for check in summary.checks:
        if not check.holds:
            console.print(
                Text(f"  WRONG: {check.claim}: {check.expected!r} expected, {check.found!r} found", "red")
            )
    if summary.agrees:
        agreed = "the log, the queues, the dead letters, the metrics, the mail server and the database agree"
        console.print(Text(f"  {agreed} ({len(summary.checks)} checks)", "green"))
