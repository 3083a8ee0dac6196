"""`brokerjobs queues`: what waits, runs and died, and how long it takes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import click

from brokerjobs import discovery, settings
from brokerjobs.cli.completion import complete_queue
from brokerjobs.cli.options import consumers_option, management_url_option, namespace_option, url_option
from brokerjobs.cli.output import json_option, lapse, print_json, print_table
from brokerjobs.cli.picture import SHORTEST, flow_as_json, moment, waiting_as_json
from brokerjobs.durations import seconds, text
from brokerjobs.errors import ConfigurationError, UnknownQueue
from brokerjobs.inspection import Counts, Course, Flow, Look, Snapshot, Watch
from brokerjobs.settings import Settings

COLUMNS = ("queue", "ready", "unacked", "consumers", "dead", "paused", "oldest")
RATES = ("arrivals", "done", "drain")


@click.command()
@click.argument("queues", nargs=-1, metavar="[QUEUE…]", shell_complete=complete_queue)
@click.option("--rates", metavar="DURATION", help="Look again after so long: what came, and what was done.")
@json_option
@consumers_option
@namespace_option
@url_option
@management_url_option
def command(queues: tuple[str, ...], rates: str | None, as_json: bool, **given: Any) -> None:
    """Messages and consumers of each queue, and what waits in the delay levels or matched no queue.

    Ready and dead are exact; unacked, what workers hold, comes from RabbitMQ's management API and is up to 5 s old.
    Oldest is how long the oldest ready message has waited at most.
    """
    chosen = settings.load(**given)
    apart = None if rates is None else _apart(rates)
    look, flows = asyncio.run(_look(chosen, queues or declared(chosen), apart))
    seen = look.snapshot
    shown = [counts for counts in seen.queues if not queues or counts.queue in queues]
    _refuse_unknown(queues, seen, chosen)
    notes = [note for note in (seen.missing, look.missing) if note]
    if as_json:
        print_json(_as_json(seen, shown, flows, "; ".join(notes), with_rates=apart is not None))
        return
    columns = COLUMNS if apart is None else COLUMNS + RATES
    rows = [(*_row(counts), *_times(flows[counts.queue]))[: len(columns)] for counts in shown]
    print_table(columns, rows, empty=f"no queues at {chosen.address}")
    for line in _shared_lines(seen):
        click.echo(line)
    for note in notes:
        click.echo(note, err=True)


def _apart(rates: str) -> float:
    apart = seconds(rates, name="--rates")
    if apart < SHORTEST:
        raise ConfigurationError(f"--rates must be {text(SHORTEST)} or more, not {rates}")
    return apart


async def _look(
    chosen: Settings, queues: Iterable[str], apart: float | None
) -> tuple[Look, Mapping[str, Flow]]:
    course = Course()
    async with Watch(chosen, queues) as watch:
        flows = course.take(look := await watch.look())
        if apart is not None:
            await asyncio.sleep(apart)  # noqa: TID251  (what happens meanwhile is what is asked for)
            flows = course.take(look := await watch.look())
    return look, flows


def declared(chosen: Settings) -> list[str]:
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


def _times(flow: Flow) -> tuple[str | None, ...]:
    rates = (None if rate is None else f"{rate:.1f}/s" for rate in (flow.arrivals, flow.done))
    return _at_most(flow.oldest), *rates, _until_dry(flow.drain)


def _at_most(oldest: float | None) -> str | None:
    return None if oldest is None else f"≤{lapse(oldest)}" if oldest else "0s"


def _until_dry(drain: float | None) -> str | None:
    return None if drain is None else lapse(drain) if math.isfinite(drain) else "never"


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


def _as_json(
    seen: Snapshot, shown: list[Counts], flows: Mapping[str, Flow], missing: str, *, with_rates: bool
) -> dict[str, Any]:
    times = {queue: flow_as_json(flow) for queue, flow in flows.items()}
    if not with_rates:
        times = {queue: {"oldest_seconds": told["oldest_seconds"]} for queue, told in times.items()}
    return {
        "at": moment(seen.at),
        "queues": [{**asdict(counts), **times[counts.queue]} for counts in shown],
        "waiting": waiting_as_json(seen),
        "unrouted": seen.unrouted,
        "missing": missing,
    }
