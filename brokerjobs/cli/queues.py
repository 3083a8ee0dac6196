"""`brokerjobs queues`: what waits, runs and died."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click

from brokerjobs import discovery, settings
from brokerjobs.cli.completion import complete_queue
from brokerjobs.cli.options import consumers_option, management_url_option, namespace_option, url_option
from brokerjobs.cli.output import json_option, print_json, print_table
from brokerjobs.durations import text
from brokerjobs.errors import ConfigurationError, UnknownQueue
from brokerjobs.inspection import Counts, Snapshot, snapshot
from brokerjobs.settings import Settings

COLUMNS = ("queue", "ready", "unacked", "consumers", "dead", "paused")


@click.command()
@click.argument("queues", nargs=-1, metavar="[QUEUE…]", shell_complete=complete_queue)
@json_option
@consumers_option
@namespace_option
@url_option
@management_url_option
def command(queues: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Messages and consumers of each queue, and what waits in the delay levels or matched no queue.

    Ready and dead are exact; unacked, what workers hold, comes from RabbitMQ's management API and is up to 5 s old.
    """
    chosen = settings.load(**given)
    seen = asyncio.run(snapshot(chosen, queues or _declared(chosen)))
    shown = [counts for counts in seen.queues if not queues or counts.queue in queues]
    _refuse_unknown(queues, seen, chosen)
    if as_json:
        print_json(_as_json(seen, shown))
        return
    print_table(COLUMNS, [_row(counts) for counts in shown], empty=f"no queues at {chosen.address}")
    for line in _shared_lines(seen):
        click.echo(line)
    if seen.missing:
        click.echo(seen.missing, err=True)


def _declared(chosen: Settings) -> list[str]:
    """Queues of the consumers, where there are some: this verb works without them too."""
    try:
        return [consumer.queue for consumer in discovery.find(chosen.consumers)]
    except ConfigurationError:
        return []


def _refuse_unknown(queues: tuple[str, ...], seen: Snapshot, chosen: Settings) -> None:
    there = [counts.queue for counts in seen.queues if counts.ready is not None]
    for queue in queues:
        if queue not in there:
            raise UnknownQueue(
                f"there is no queue {queue!r} at {chosen.address}; there are: {', '.join(there) or 'none'}"
            )


def _row(counts: Counts) -> tuple[object, ...]:
    if counts.ready is None:
        return counts.queue, "not declared", None, None, None, None
    return (
        counts.queue,
        counts.ready,
        counts.unacked,
        counts.consumers,
        counts.dead,
        "yes" if counts.paused else "no",
    )


def _shared_lines(seen: Snapshot) -> list[str]:
    """What cannot be told by queue."""
    if seen.unrouted is None:
        return ["nothing is declared yet: start a worker, or run `brokerjobs topology apply`"]
    levels = ", ".join(f"{text(level.delay)} {level.waiting}" for level in seen.levels)
    waiting = f"  retries and scheduled jobs of all queues, by delay level: {levels}" if levels else ""
    unrouted = "  published when no queue was bound for them; a worker that binds their keys takes them"
    return [
        f"waiting   {seen.waiting}{waiting}",
        f"unrouted  {seen.unrouted}{unrouted if seen.unrouted else ''}",
    ]


def _as_json(seen: Snapshot, shown: list[Counts]) -> dict[str, Any]:
    return {
        "at": datetime.fromtimestamp(seen.at, UTC).isoformat(timespec="milliseconds"),
        "queues": [asdict(counts) for counts in shown],
        "waiting": {
            "total": seen.waiting,
            "levels": [{"delay_seconds": level.delay, "waiting": level.waiting} for level in seen.levels],
        },
        "unrouted": seen.unrouted,
        "missing": seen.missing,
    }
