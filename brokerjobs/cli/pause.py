"""`brokerjobs pause`: let no worker take from a queue."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from brokerjobs import control, settings
from brokerjobs.cli.completion import complete_queue
from brokerjobs.cli.options import namespace_option, url_option
from brokerjobs.cli.output import json_option, print_json


@click.command()
@click.argument("queue", shell_complete=complete_queue)
@click.option("--why", default="", metavar="TEXT", help="Shown to whoever asks why nothing runs.")
@json_option
@namespace_option
@url_option
def command(queue: str, why: str, as_json: bool, **given: Any) -> None:
    """Pause a queue: its workers finish what runs and take nothing more, also after a restart, until `resume`.

    Jobs are still accepted, and wait.
    """
    asyncio.run(control.pause(settings.load(**given), queue, why))
    if as_json:
        print_json({"queue": queue, "paused": True})
    else:
        click.echo(f"{queue} is paused; `brokerjobs resume {queue}` lets it go on")
