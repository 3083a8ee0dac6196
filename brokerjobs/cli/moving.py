"""Run a replay or a drop: show how far it is, let Ctrl-C end it after the message in hand, say what was done."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

import click

from brokerjobs.cli import letters
from brokerjobs.cli.exits import DONE, FAILURE, INTERRUPTED
from brokerjobs.cli.output import print_json, printable
from brokerjobs.dead_letters import DeadLetter, Progress
from brokerjobs.errors import AccessRefused, BrokerJobsError

INTERVAL = 5.0  # seconds between lines where there is no terminal
ROWS = 50  # of a dry run

OnStep = Callable[[Progress, DeadLetter | None], None]
Move = Callable[[asyncio.Event, OnStep], Coroutine[Any, Any, Progress]]
Tell = Callable[[int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Words:
    """What is done, in words: replay, replayed, "to emails"."""

    verb: str
    done: str
    where: str


def run(move: Move, words: Words, tell: Tell, *, dry_run: bool, as_json: bool) -> int:
    """Run it, report, and give the exit code.

    Args:
        move: takes an event that asks it to stop, and a callback for each step.
        words: for what is said.
        tell: lets workers log how many were done, however it ended.
        dry_run: whether nothing is really done, so that the dead letters concerned are listed.
        as_json: print JSON.
    """
    touched: list[DeadLetter] = []

    def remember(letter: DeadLetter | None) -> None:
        if dry_run and letter is not None and (len(touched) < ROWS):
            touched.append(letter)

    with _shown(words, quiet=as_json or dry_run) as show:

        def on_step(progress: Progress, letter: DeadLetter | None) -> None:
            remember(letter)
            show(progress)

        progress = asyncio.run(_stoppable(move if dry_run else _told(move, tell), on_step))
    if as_json:
        print_json({"dry_run": dry_run, **asdict(progress)})
    else:
        if touched:
            letters.print_letters(touched, empty="")
        click.echo(_account(progress, words, dry_run), err=dry_run)
    if progress.stopped:
        return INTERRUPTED
    return FAILURE if progress.refused else DONE


def _told(move: Move, tell: Tell) -> Move:
    async def moved(stop: asyncio.Event, on_step: OnStep) -> Progress:
        done = 0

        def step(progress: Progress, letter: DeadLetter | None) -> None:
            nonlocal done
            done = progress.done
            on_step(progress, letter)

        try:
            return await move(stop, step)
        finally:
            if done:
                await _tell(tell, done)

    return moved


async def _tell(tell: Tell, done: int) -> None:
    """It is done, whether or not anybody hears of it."""
    try:
        await tell(done)
    except AccessRefused:
        return  # who may not speak to workers knows that
    except BrokerJobsError as error:
        click.echo(f"it is done, but workers could not be told, to log it: {error}", err=True)


async def _stoppable(move: Move, on_step: OnStep) -> Progress:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def told() -> None:
        stop.set()
        for number in signal.SIGINT, signal.SIGTERM:  # the second time ends it at once
            loop.remove_signal_handler(number)

    for number in signal.SIGINT, signal.SIGTERM:
        with suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(number, told)
    return await move(stop, on_step)


@contextmanager
def _shown(words: Words, *, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """How far it is: a bar on a terminal, a line now and then elsewhere; and when it fails, how far it came."""
    latest: list[Progress] = []
    try:
        with _bar(words) if sys.stderr.isatty() and not quiet else _lines(words, quiet) as show:

            def remember_and_show(progress: Progress) -> None:
                latest[:] = [progress]
                show(progress)

            yield remember_and_show
    except BaseException:
        if latest and latest[0].done:
            click.echo(f"{latest[0].done} were {words.done} before this:", err=True)
        raise


@contextmanager
def _bar(words: Words) -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(words.verb, total=None)

        def show(progress: Progress) -> None:
            done = f"{progress.done} {words.done}"
            bar.update(task, total=progress.present, completed=progress.seen, description=done)

        yield show


@contextmanager
def _lines(words: Words, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    next_at = time.monotonic() + INTERVAL

    def show(progress: Progress) -> None:
        nonlocal next_at
        if not quiet and time.monotonic() >= next_at:
            next_at += INTERVAL
            click.echo(f"{progress.done} {words.done}, {progress.seen} of {progress.present} seen", err=True)

    yield show


def _account(progress: Progress, words: Words, dry_run: bool) -> str:
    """What was done, in one line."""
    if dry_run:
        parts = [f"would {words.verb} {progress.done} of {progress.present} dead letters {words.where}"]
    elif progress.done or progress.stopped or progress.refused:
        parts = [f"{words.done} {progress.done} of {progress.present} dead letters {words.where}"]
    else:
        return f"nothing to {words.verb}: " + (
            f"none of {progress.present} dead letters matches"
            if progress.present
            else "no dead letters are there"
        )
    if progress.doubles:
        parts.append(f"{progress.doubles} further copies of them {'to remove' if dry_run else 'removed'}")
    if progress.refused:
        parts.append(
            f"{progress.refused} kept that RabbitMQ refuses, the first: {printable(progress.problem)}"
        )
    if progress.stopped:
        parts.append(f"stopped with {progress.present - progress.seen} not looked at")
    return "; ".join(parts)
