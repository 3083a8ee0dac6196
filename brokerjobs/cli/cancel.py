"""`brokerjobs cancel`: end a job wherever it is."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

import click

from brokerjobs import control, settings
from brokerjobs.cli.options import namespace_option, url_option, wait_option
from brokerjobs.cli.output import json_option, print_json
from brokerjobs.control import Found
from brokerjobs.durations import seconds


@click.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID…")
@wait_option
@json_option
@namespace_option
@url_option
def command(ids: tuple[str, ...], wait: str, as_json: bool, **given: Any) -> None:
    """Cancel jobs by id: one that runs is stopped; one that is queued or waits is not run when its turn comes.

    Either way it goes to the dead letter queue with the reason `cancelled`, from where it can be replayed.
    """
    chosen, patience = settings.load(**given), seconds(wait, name="--wait")
    for id in ids:
        found = asyncio.run(control.cancel(chosen, id, wait=patience))
        if as_json:
            print_json({"id": id, "cancelled": True, "found": [asdict(each) for each in found]})
            continue
        for each in found:
            click.echo(_told(id, each))
        if not found:
            click.echo(
                f"{id}: no worker says that it runs it. Where it is queued or waits, it goes to the dead letter queue "
                "when its turn comes; if it has ended already, nothing happens"
            )


def _told(id: str, found: Found) -> str:
    where = f"{id}: it ran as {found.job} in worker {found.worker}"
    if found.stopped:
        return f"{where} and is stopped"
    return (
        f"{where}, in a thread, which cannot be ended: it can see current_job().is_cancelled, "
        "and is not tried again if it fails"
    )
