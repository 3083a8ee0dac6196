"""`brokerjobs top`: queues, workers and failures, live."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import click

from brokerjobs import settings
from brokerjobs.cli.completion import complete_queue
from brokerjobs.cli.options import (
    consumers_option,
    management_url_option,
    namespace_option,
    url_option,
    wait_option,
)
from brokerjobs.cli.output import json_option
from brokerjobs.cli.picture import SHORTEST, Failures, Picture
from brokerjobs.cli.queues import declared
from brokerjobs.cli.screen import Lines, Live, Objects, Once, Screen
from brokerjobs.durations import seconds, text
from brokerjobs.errors import BrokerJobsError, ConfigurationError, UnknownQueue
from brokerjobs.inspection import Course, Look, Watch, standings
from brokerjobs.settings import Settings

LONGEST_PAUSE = 15.0  # seconds between tries of a broker that is away


@click.command()
@click.argument("queues", nargs=-1, metavar="[QUEUE…]", shell_complete=complete_queue)
@click.option("--interval", metavar="DURATION", default="2s", help="Time between looks [2s].")
@click.option("--once", is_flag=True, help="Look twice, print one picture, and end.")
@json_option
@wait_option
@consumers_option
@namespace_option
@url_option
@management_url_option
def command(
    queues: tuple[str, ...], interval: str, once: bool, as_json: bool, wait: str, **given: Any
) -> None:
    """Watch queues, the workers and what they run, and what failed lately, what needs you first on top.

    Keys: q quits, p holds the picture. Plain lines where standard output is no terminal.
    """
    chosen, pause = settings.load(**given), seconds(interval, name="--interval")
    if pause < SHORTEST:
        raise ConfigurationError(f"--interval must be {text(SHORTEST)} or more, not {interval}")
    top = Top(chosen, queues, interval=pause, once=once, patience=seconds(wait, name="--wait"))
    asyncio.run(top.run(as_json))


class Top:
    """Looks and shows until told to end.

    Args:
        chosen: where to look.
        queues: at which; all for none.
        interval: seconds from one look to the next.
        once: show one picture, with rates between two looks, and end.
        patience: seconds that workers have to answer.
    """

    def __init__(
        self, chosen: Settings, queues: Sequence[str], *, interval: float, once: bool, patience: float
    ) -> None:
        self._settings = chosen
        self._named = queues
        self._interval = interval
        self._once = once
        self._patience = patience
        self._course = Course()
        self._failures = Failures()
        self._looks = 0
        self._has_looked_since = False

    async def run(self, as_json: bool) -> None:
        """Until a person quits; with `once` until there is a picture.

        Raises:
            BrokerJobsError: there never was a picture, and will be none.
        """
        loop, screen = asyncio.get_running_loop(), self._screen(as_json)
        told: asyncio.Future[int] = loop.create_future()

        def leave(number: int = 0) -> None:
            if not told.done():
                told.set_result(number)

        for number in signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                loop.add_signal_handler(number, leave, number)
        watching = asyncio.ensure_future(self._watch(screen))
        either: set[asyncio.Future[Any]] = {watching, told}
        try:
            with screen.open(leave) if isinstance(screen, Live) else nullcontext():
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:  # a broker that is frozen must not hold the terminal
            watching.cancel()
            await asyncio.wait({watching})
        if not told.done():
            watching.result()
        elif told.result():
            raise KeyboardInterrupt

    def _screen(self, as_json: bool) -> Screen:
        if as_json:
            return Objects()
        if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
            return Lines()
        return Once() if self._once else Live(f"every {text(self._interval)}")

    async def _watch(self, screen: Screen) -> None:
        tries = 0
        while True:
            try:
                await self._watch_once_connected(screen)
                return
            except BrokerJobsError as error:
                if not self._looks or self._once or isinstance(error, UnknownQueue):
                    raise
                tries = 0 if self._has_looked_since else tries + 1
                self._has_looked_since = False
                pause = min(LONGEST_PAUSE, 2.0**tries) * random.uniform(0.5, 1.0)
                screen.lose(str(error), pause)
                await asyncio.sleep(pause)  # noqa: TID251  (nothing tells when a broker is back)

    async def _watch_once_connected(self, screen: Screen) -> None:
        clock = asyncio.get_running_loop().time
        queues = self._named or declared(self._settings)
        watch = Watch(self._settings, queues, others=not self._named, patience=self._patience)
        async with watch:
            while True:
                began = clock()
                look = await watch.look()
                self._refuse_unknown(look)
                picture = self._picture(look)
                self._looks += 1
                self._has_looked_since = True
                if not self._once or self._looks == 2:
                    screen.show(picture)
                if self._once and self._looks == 2:
                    return
                left = self._interval - (clock() - began)
                await asyncio.sleep(max(left, self._interval / 2))  # noqa: TID251  (the interval)

    def _picture(self, look: Look) -> Picture:
        flows = self._course.take(look)
        return Picture(
            address=self._settings.address,
            look=look,
            standings=standings(look, flows),
            failures=self._failures.take(look, list(flows)),
            notes=[note for note in (look.snapshot.missing, look.missing) if note],
        )

    def _refuse_unknown(self, look: Look) -> None:
        for counts in look.snapshot.queues:
            if counts.ready is None and not self._looks and counts.queue in self._named:
                raise UnknownQueue(
                    f"there is no queue {counts.queue!r} at {self._settings.address}; "
                    "`brokerjobs queues` lists them"
                )
