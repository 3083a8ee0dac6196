"""`brokerjobs workers`: which workers are there, and who runs what since when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click

from brokerjobs import control, settings
from brokerjobs.cli.options import namespace_option, url_option, wait_option
from brokerjobs.cli.output import json_option, lapse, print_json, print_table
from brokerjobs.durations import seconds, text
from brokerjobs.worker_state import WorkerState

COLUMNS = ("worker", "queue", "job", "id", "attempt", "for")


@click.command()
@wait_option
@json_option
@namespace_option
@url_option
def command(wait: str, as_json: bool, **given: Any) -> None:
    """Ask all workers what they run. One that is frozen, or may not use the control exchange, does not answer."""
    chosen, patience = settings.load(**given), seconds(wait, name="--wait")
    found = asyncio.run(control.workers(chosen, wait=patience))
    if as_json:
        print_json([asdict(state) for state in found])
        return
    now = time.time()
    print_table(
        COLUMNS,
        [row for state in found for row in _rows(state, now)],
        empty=f"no worker at {chosen.address} has answered within {text(patience)}",
    )
    for state in found:
        for queue, whys in state.paused.items():
            for who, why in whys.items():
                click.echo(f"paused    {queue} in {state.worker}, by {who}: {why}")


def _rows(state: WorkerState, now: float) -> Iterator[tuple[object, ...]]:
    """A row for each job, and one for each queue where none runs."""
    for queue in state.queues:
        jobs = [job for job in state.running if job.queue == queue]
        for job in jobs:
            yield state.worker, queue, job.job, job.id, job.attempt, lapse(now - job.began)
        if not jobs:
            yield state.worker, queue, "paused" if queue in state.paused else "idle", None, None, None
