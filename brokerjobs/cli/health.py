"""`brokerjobs health`: whether the worker on this machine is ready, or lives.

Containers run it every few seconds, so it loads next to nothing. The settings proper would take longer than the answer.
"""

from __future__ import annotations

import http.client
import json
import os
import tomllib
from pathlib import Path

import click

from brokerjobs.cli import fail
from brokerjobs.cli.exits import DONE, FAILURE, UNREACHABLE, USAGE
from brokerjobs.errors import ConfigurationError
from brokerjobs.health import DEFAULT_HOST, DEFAULT_PORT, port_of

PATIENCE = 5.0  # seconds
ALL = {
    "0.0.0.0": "127.0.0.1",
    "::": "::1",
    "": DEFAULT_HOST,
}  # where one listens at all addresses, and asks at one
VERDICTS = (200, 503)


@click.command()
@click.option(
    "--ready", "question", flag_value="ready", default=True, help="Does it take jobs? (the default)"
)
@click.option("--live", "question", flag_value="live", help="Does its event loop turn?")
@click.option("--port", metavar="PORT", help="Its metrics port [9464].")
@click.option("--host", metavar="HOST", help="Its metrics host [127.0.0.1].")
@click.option("--json", "as_json", is_flag=True, help="Print all that it says of itself, as JSON.")
def command(question: str, port: str | None, host: str | None, as_json: bool) -> int:
    """Ask the worker on this machine how it does.

    Exit codes: 0 it is ready (or live), 1 it is not, for the reasons printed, 69 nobody answers.
    """
    number = _port(port)
    where = ALL.get(host := _setting("metrics_host", host, DEFAULT_HOST), host)
    status, text = _ask(
        where, number, "/status" if as_json else "/livez" if question == "live" else "/readyz"
    )
    click.echo(text)
    is_good = json.loads(text)[question] is True if as_json else status == VERDICTS[0]
    return DONE if is_good else FAILURE


def _ask(host: str, port: int, path: str) -> tuple[int, str]:
    """The answer's status and text; ends the process if there is none."""
    asking = http.client.HTTPConnection(host, port, timeout=PATIENCE)
    try:
        asking.request("GET", path)
        answer = asking.getresponse()
        text = answer.read().decode(errors="replace").rstrip("\n")
    except (OSError, http.client.HTTPException) as error:
        why = str(getattr(error, "strerror", None) or error or type(error).__name__)
        fail(
            f"no worker answers at {host}:{port}: {why}; is it running, with this --metrics-port?",
            UNREACHABLE,
        )
    finally:
        asking.close()
    if answer.status not in VERDICTS:
        fail(
            f"what answers at {host}:{port} is no worker of brokerjobs: {answer.status} {answer.reason}",
            UNREACHABLE,
        )
    return answer.status, text


def _port(given: str | None) -> int:
    try:
        port = port_of(_setting("metrics_port", given, str(DEFAULT_PORT)))
    except ValueError as error:
        raise ConfigurationError(f"metrics_port {error}") from None
    if not port:
        fail(
            "nobody knows the port of a worker whose metrics_port is 0 or none: give --port, or set one",
            USAGE,
        )
    return port


def _setting(name: str, given: str | None, default: str) -> str:
    """As `settings.load` finds it."""
    return given or os.environ.get(f"BROKERJOBS_{name.upper()}") or _in_pyproject(name) or default


def _in_pyproject(name: str) -> str | None:
    try:
        table = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["brokerjobs"]
        return str(table.get(name, table.get(name.replace("_", "-"), "")))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
