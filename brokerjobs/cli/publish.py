"""`brokerjobs publish emails.welcome '{"user_id": 7}'`: publish one job by its name."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from brokerjobs import settings
from brokerjobs.cli.completion import complete_job
from brokerjobs.cli.options import namespace_option, url_option
from brokerjobs.cli.output import json_option, print_json
from brokerjobs.errors import InvalidArguments
from brokerjobs.message import NORMAL_PRIORITY


@click.command()
@click.argument("job", shell_complete=complete_job)
@click.argument("arguments", default="{}", metavar="[JSON]")
@click.option("--priority", type=int, default=NORMAL_PRIORITY, help="0 to 9, higher first [4].")
@click.option("--delay", metavar="DURATION", help="Run after this long: 30, 10m, 1h30m.")
@click.option("--at", metavar="TIME", help="Run at this time: 2026-12-24T18:00:00+01:00.")
@click.option("--expires", metavar="DURATION", help="Do not start later than this after it was due.")
@click.option("--id", "job_id", metavar="ID", help="Your own job id.")
@click.option("--header", "headers", multiple=True, metavar="NAME=TEXT", help="A header for the job to read.")
@click.option("--raw", is_flag=True, help="Send the bytes as they are, for a raw-body job.")
@click.option(
    "--no-check", is_flag=True, help="Do not check that the queue exists (for events routed by topic)."
)
@json_option
@namespace_option
@url_option
def command(
    job: str,
    arguments: str,
    priority: int,
    raw: bool,
    no_check: bool,
    as_json: bool,
    job_id: str | None,
    **given: Any,
) -> None:
    """Publish JOB with its arguments as a JSON object; "-" reads them from standard input, "@FILE" from a file.

    Prints the job id once the broker has confirmed it.
    """
    from brokerjobs.client import Client

    options = {name: given.pop(name) for name in ("delay", "expires")}
    headers = dict(map(_header, given.pop("headers")))
    at = _time(given.pop("at"))
    body = _read(arguments)
    with Client(settings=settings.load(**given)) as client:
        try:
            handle = client.send(
                job,
                body if raw else _object(body),
                check_queue=not no_check,
                priority=priority,
                at=at,
                id=job_id,
                headers=headers,
                **options,
            )
        except InvalidArguments as error:  # of the options and the name: nobody has been asked yet
            raise click.UsageError(str(error)) from None
    if as_json:
        print_json({"id": handle.id, "job": handle.job})
    else:
        click.echo(handle.id)


def _read(arguments: str) -> bytes:
    if arguments == "-":
        return sys.stdin.buffer.read()
    if arguments.startswith("@"):
        try:
            return Path(arguments[1:]).read_bytes()
        except OSError as error:
            raise click.UsageError(f"cannot read {arguments[1:]}: {error.strerror}") from None
    return arguments.encode(errors="surrogateescape")


def _object(body: bytes) -> dict[str, Any]:
    from brokerjobs import payload
    from brokerjobs.errors import UndecodableMessage

    try:
        positional, named = payload.decode(body, payload.JSON, None)
    except UndecodableMessage as error:
        raise click.UsageError(f"{error}; write for example '{{\"user_id\": 7}}'") from None
    if positional:
        raise click.UsageError("give the arguments as a JSON object, by name: '{\"user_id\": 7}'")
    return named


def _header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise click.UsageError(f"--header takes NAME=TEXT, not {text!r}")
    return name, value


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f"--at takes a time such as 2026-12-24T18:00:00+01:00, not {text!r}") from None
    return at if at.tzinfo else at.astimezone()
