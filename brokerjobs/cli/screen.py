"""Where pictures go: a live screen with keys, plain lines, or JSON."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

import click

from brokerjobs.cli.output import lapse, print_json
from brokerjobs.cli.picture import Picture, as_json, lines

TICK = 1.0  # seconds between drawings while nothing new comes


class Screen(Protocol):
    """Any of the three."""

    def show(self, picture: Picture) -> None:
        """How things are now."""

    def lose(self, why: str, again_in: float) -> None:
        """They cannot be seen for a while.

        Args:
            why: in one line.
            again_in: seconds until the next try.
        """


class Objects:
    """One JSON object for each look, on a line of its own."""

    def show(self, picture: Picture) -> None:
        print_json(as_json(picture), on_one_line=True)

    def lose(self, why: str, again_in: float) -> None:
        click.echo(f"brokerjobs: {why}; trying again in {lapse(again_in)}", err=True)


class Lines(Objects):
    """A block of plain lines for each look."""

    def __init__(self) -> None:
        self._before: Picture | None = None

    def show(self, picture: Picture) -> None:
        block = "\n".join(lines(picture, self._before))
        click.echo(f"{block}\n" if self._before is None else f"\n{block}\n", nl=False)
        self._before = picture


class Once:
    """One picture on a terminal, as long as it is."""

    def show(self, picture: Picture) -> None:
        from rich.console import Console

        from brokerjobs.cli.drawing import draw

        console = Console(highlight=False)
        console.print(draw(picture, width=console.width, height=sys.maxsize))

    def lose(self, why: str, again_in: float) -> None:
        """Whoever looks once hears the error itself."""


class Live:
    """The whole terminal, drawn anew for each look, each second, and when its size changes.

    Args:
        head: what the first line says about itself.
    """

    def __init__(self, head: str) -> None:
        self._head = head
        self._leave: Callable[[], None] = lambda: None
        self._picture: Picture | None = None
        self._why, self._again_at = "", 0.0
        self._held = False
        self._redraw: Callable[[], None] = lambda: None

    @contextmanager
    def open(self, leave: Callable[[], None]) -> Iterator[None]:
        """Take the terminal, and give it back as it was.

        Args:
            leave: called when a person wants to.
        """
        from rich.console import Console
        from rich.live import Live as Canvas

        console, loop = Console(highlight=False), asyncio.get_running_loop()
        self._leave = leave
        with _keys(self._press), Canvas(console=console, screen=True, auto_refresh=False) as canvas:
            self._redraw = lambda: self._draw(console, canvas.update)
            loop.add_signal_handler(signal.SIGWINCH, self._redraw)
            ticking = asyncio.ensure_future(self._tick())
            try:
                yield
            finally:
                ticking.cancel()
                loop.remove_signal_handler(signal.SIGWINCH)
                self._redraw = lambda: None

    def show(self, picture: Picture) -> None:
        self._why = ""
        if not self._held:
            self._picture = picture
        self._redraw()

    def lose(self, why: str, again_in: float) -> None:
        self._why, self._again_at = why, asyncio.get_running_loop().time() + again_in
        self._redraw()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)  # noqa: TID251  (the clock on the screen)
            self._redraw()

    def _press(self, key: str) -> None:
        match key:
            case "q" | "Q" | "\x03" | "":
                self._leave()
            case "p" | " ":
                self._held = not self._held
                self._redraw()

    def _draw(self, console: object, update: Callable[..., None]) -> None:
        from rich.console import Console
        from rich.text import Text

        from brokerjobs.cli.drawing import draw

        assert isinstance(console, Console)
        if self._picture is None:
            update(Text("looking…"), refresh=True)
            return
        head = "held: p goes on   q quits" if self._held else f"{self._head}   q quits   p holds"
        left = self._again_at - asyncio.get_running_loop().time()
        alarm = f"not of now; next try in {lapse(max(0.0, round(left)))}: {self._why}" if self._why else ""
        picture = draw(self._picture, width=console.width, height=console.height, head=head, alarm=alarm)
        update(picture, refresh=True)


@contextmanager
def _keys(press: Callable[[str], None]) -> Iterator[None]:
    """Hear each key at once, where standard input is a terminal."""
    if not sys.stdin.isatty():
        yield
        return
    loop, stdin = asyncio.get_running_loop(), sys.stdin.fileno()
    before = termios.tcgetattr(stdin)
    tty.setcbreak(stdin)
    loop.add_reader(stdin, lambda: _read(stdin, press))
    try:
        yield
    finally:
        loop.remove_reader(stdin)
        with suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(stdin, termios.TCSADRAIN, before)


def _read(stdin: int, press: Callable[[str], None]) -> None:
    try:
        pressed = os.read(stdin, 64).decode(errors="replace")
    except OSError:  # the terminal is gone
        pressed = ""
    if not pressed:
        press("")
    elif not pressed.startswith(
        "\x1b"
    ):  # an arrow or a function key is many characters, and means nothing here
        for key in pressed:
            press(key)
