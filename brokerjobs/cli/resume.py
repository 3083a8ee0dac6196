"""`brokerjobs resume`: let workers take from a paused queue again."""

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
@json_option
@namespace_option
@url_option
def command(queue: str, as_json: bool, **given: Any) -> None:
    """Let workers take from a queue again that `pause` has paused."""
    was_paused = asyncio.run(control.resume(settings.load(**given), queue))
    if as_json:
        print_json({"queue": queue, "paused": False, "was_paused": was_paused})
    else:
        click.echo(f"{queue} goes on" if was_paused else f"{queue} was not paused")
