"""Where pictures go: a live screen with keys, plain lines, or JSON."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Protocol

import click

from brokerjobs.cli.output import lapse, print_json
from brokerjobs.cli.picture import Picture, as_json, lines

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live as Canvas

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
        self._canvas: Canvas | None = None
        self._terminal = ExitStack()

    @contextmanager
    def open(self, leave: Callable[[], None]) -> Iterator[None]:
        """Take the terminal, and give it back as it was; meanwhile too, while Ctrl-Z stops the process.

        Args:
            leave: called when a person wants to.
        """
        self._leave = leave
        loop = asyncio.get_running_loop()
        handlers = {signal.SIGWINCH: self._redraw}
        if signal.getsignal(signal.SIGTSTP) is not signal.SIG_IGN:  # as who could not say `fg` has it
            handlers[signal.SIGTSTP] = self._stop
        ticking = asyncio.ensure_future(self._tick())
        try:
            self._take()
            for number, handler in handlers.items():
                loop.add_signal_handler(number, handler)
            yield
        finally:
            ticking.cancel()
            for number in handlers:
                loop.remove_signal_handler(number)
            self._give_back()

    def _take(self) -> None:
        from rich.console import Console
        from rich.live import Live as Canvas

        with ExitStack() as taken:
            taken.enter_context(_keys(self._press))
            canvas = Canvas(console=Console(highlight=False), screen=True, auto_refresh=False)
            self._canvas = taken.enter_context(canvas)
            self._terminal = taken.pop_all()
        self._redraw()

    def _give_back(self) -> None:
        self._canvas = None
        with suppress(OSError):  # the terminal is gone
            self._terminal.close()

    def _stop(self) -> None:
        """Until `fg`."""
        loop = asyncio.get_running_loop()
        self._give_back()
        loop.remove_signal_handler(signal.SIGTSTP)
        signal.pthread_kill(threading.get_ident(), signal.SIGTSTP)  # this very thread: it stops here
        loop.add_signal_handler(signal.SIGTSTP, self._stop)
        try:
            self._take()
        except (OSError, termios.error):  # the terminal is gone
            self._leave()

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

    def _redraw(self) -> None:
        if self._canvas is None:
            return
        try:
            self._canvas.update(self._drawn(self._canvas.console), refresh=True)
        except OSError:  # the terminal is gone
            self._leave()

    def _drawn(self, console: Console) -> RenderableType:
        from brokerjobs.cli.drawing import draw

        if self._picture is None:
            return "looking…"
        head = "held: p goes on   q quits" if self._held else f"{self._head}   q quits   p holds"
        left = self._again_at - asyncio.get_running_loop().time()
        alarm = f"not of now; next try in {lapse(max(0.0, round(left)))}: {self._why}" if self._why else ""
        return draw(self._picture, width=console.width, height=console.height, head=head, alarm=alarm)


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
