"""`brokerjobs dead`: look at dead letters, replay them, drop them."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

import click

from brokerjobs import control, settings
from brokerjobs.cli import letters, moving
from brokerjobs.cli.completion import complete_queue
from brokerjobs.cli.options import namespace_option, url_option
from brokerjobs.cli.output import json_option, print_json
from brokerjobs.dead_letters import DeadLetters, Filter
from brokerjobs.durations import seconds
from brokerjobs.errors import ConfigurationError
from brokerjobs.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


def _moment(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """A point in time, from so long ago or from a date and time."""
    if value is None:
        return None
    with suppress(ConfigurationError):
        return time.time() - seconds(value)
    try:
        return datetime.fromisoformat(value).timestamp()
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is neither a duration such as 2h nor a time such as 2026-12-24T18:00"
        ) from None


def filters(command: F) -> F:
    """Add the options that say which dead letters."""
    for option in (
        click.option("--until", metavar="TIME", callback=_moment, help="Died then or before, likewise."),
        click.option(
            "--since", metavar="TIME", callback=_moment, help="Died within 2h, or since 2026-12-24T18:00."
        ),
        click.option("--reason", metavar="WORD", default="", help="With this reason: exhausted, rejected, …"),
        click.option("--error", metavar="TEXT", default="", help="With this in the error or its class."),
        click.option("--job", metavar="GLOB", default="", help="Of this job; wildcards: 'emails.*'."),
    ):
        command = option(command)
    return command


queue_argument = click.argument("queue", shell_complete=complete_queue)
ids_argument = click.argument("ids", nargs=-1, metavar="[ID…]")
all_option = click.option("--all", "everything", is_flag=True, help="All of them.")
most_option = click.option("--limit", metavar="N", type=click.IntRange(min=1), help="At most so many.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Only say what would be done.")


@click.group()
def command() -> None:
    """Dead letters: jobs whose attempts are spent, or that could not be run at all.

    They lie in the queue QUEUE.dead until somebody replays or drops them.
    """


@command.command("list")
@queue_argument
@filters
@click.option(
    "--limit", metavar="N", type=click.IntRange(1, 10_000), default=50, help="At most so many [50]."
)
@click.option("--group", is_flag=True, help="Count them by reason and error.")
@json_option
@namespace_option
@url_option
def list_(queue: str, limit: int, group: bool, as_json: bool, **given: Any) -> None:
    """What died, oldest first; nothing is taken away."""
    chosen, dead = _filter(given), _dead_letters(queue, given)
    if group:
        _print_groups(dead, chosen, as_json)
        return
    page = asyncio.run(dead.page(chosen, limit=limit))
    if as_json:
        found = [letters.as_json(letter, whole=False) for letter in page.letters]
        print_json({"queue": queue, "present": page.present, "more": page.more, "dead_letters": found})
        return
    letters.print_letters(page.letters, empty=_nothing(queue, page.present))
    if page.more:
        click.echo(f"more match; see them with --limit {limit * 10}, or count them with --group", err=True)


@command.command()
@queue_argument
@click.argument("id")
@json_option
@namespace_option
@url_option
def show(queue: str, id: str, as_json: bool, **given: Any) -> None:
    """Everything about one dead letter, its arguments included. ID may be the beginning of an id."""
    letter = asyncio.run(_dead_letters(queue, given).get(id))
    if as_json:
        print_json(letters.as_json(letter, whole=True))
        return
    for line in letters.page(letter, given["namespace"] or ""):
        click.echo(line)


@command.command()
@queue_argument
@ids_argument
@all_option
@filters
@most_option
@click.option(
    "--rate",
    metavar="N",
    type=click.FloatRange(min=0),
    default=50.0,
    help="At most so many a second [50]; 0 for no limit.",
)
@click.option("--delay", metavar="DURATION", default="0", help="Run after this long: 30, 10m, 1h30m.")
@dry_run_option
@json_option
@namespace_option
@url_option
def replay(
    queue: str,
    ids: tuple[str, ...],
    everything: bool,
    limit: int | None,
    rate: float,
    delay: str,
    **given: Any,
) -> int:
    """Send dead letters back to the queue in which they died, as first attempts under their old ids.

    Each is removed from the dead letters once RabbitMQ has confirmed it, so an interruption loses none.
    """
    dead, dry_run = _dead_letters(queue, given), given["dry_run"]
    chosen = _with_whole_ids(dead, _filter(given, ids, everything))
    wait = seconds(delay, name="--delay")
    return moving.run(
        lambda stop, on_step: dead.replay(
            chosen, limit=limit, rate=rate, delay=wait, dry_run=dry_run, stop=stop, on_step=on_step
        ),
        moving.Words("replay", "replayed", f"to {queue}"),
        _tell(queue, given, "replayed"),
        dry_run=dry_run,
        as_json=given["as_json"],
    )


@command.command()
@queue_argument
@ids_argument
@all_option
@filters
@most_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@dry_run_option
@json_option
@namespace_option
@url_option
def drop(
    queue: str, ids: tuple[str, ...], everything: bool, limit: int | None, yes: bool, **given: Any
) -> int:
    """Remove dead letters for good."""
    dead, dry_run = _dead_letters(queue, given), given["dry_run"]
    chosen = _with_whole_ids(dead, _filter(given, ids, everything))
    if not (yes or dry_run):
        _confirm(queue, dead, chosen, limit)
    return moving.run(
        lambda stop, on_step: dead.drop(chosen, limit=limit, dry_run=dry_run, stop=stop, on_step=on_step),
        moving.Words("drop", "dropped", f"of {queue}"),
        _tell(queue, given, "dropped"),
        dry_run=dry_run,
        as_json=given["as_json"],
    )


# -- what was asked for


def _settings(given: dict[str, Any]) -> Settings:
    return settings.load(url=given["url"], namespace=given["namespace"])


def _dead_letters(queue: str, given: dict[str, Any]) -> DeadLetters:
    return DeadLetters(_settings(given), queue)


def _tell(queue: str, given: dict[str, Any], done: str) -> moving.Tell:
    return lambda count: control.tell_handled(_settings(given), queue, done, count)


def _filter(given: dict[str, Any], ids: tuple[str, ...] | None = None, everything: bool = True) -> Filter:
    """The filter in the options.

    Args:
        given: options.
        ids: from the arguments; None where the verb takes none.
        everything: whether --all was given.
    """
    found = Filter(
        ids=ids or (), **{name: given[name] for name in ("job", "error", "reason", "since", "until")}
    )
    if ids is not None:
        if "" in ids:
            raise click.UsageError("an ID is empty")
        if everything and found != Filter():
            raise click.UsageError("--all stands against ids and filters: give either")
        if not everything and found == Filter():
            raise click.UsageError(
                "say which: ids, filters (--job, --error, --reason, --since, --until), or --all"
            )
    return found


def _with_whole_ids(dead: DeadLetters, chosen: Filter) -> Filter:
    return replace(chosen, ids=asyncio.run(dead.resolve(chosen.ids))) if chosen.ids else chosen


def _confirm(queue: str, dead: DeadLetters, chosen: Filter, limit: int | None) -> None:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError("drop removes for good; it asks on a terminal, and needs --yes elsewhere")
    counted = asyncio.run(dead.drop(chosen, limit=limit, dry_run=True))
    question = f"Drop {counted.done} of {counted.present} dead letters of {queue} for good?"
    click.confirm(question, abort=True, err=True)


def _print_groups(dead: DeadLetters, chosen: Filter, as_json: bool) -> None:
    groups = asyncio.run(dead.groups(chosen))
    if as_json:
        print_json({"queue": dead.queue, "groups": list(map(letters.group_as_json, groups))})
    else:
        letters.print_groups(groups, empty=_nothing(dead.queue))


def _nothing(queue: str, present: int = 0) -> str:
    return f"none of {present} dead letters of {queue} matches" if present else f"no dead letters of {queue}"
