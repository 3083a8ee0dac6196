"""`brokerjobs broker`: a RabbitMQ of one's own for daily work."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import click

from brokerjobs.durations import text
from brokerjobs.errors import BrokerJobsError, ConfigurationError
from brokerjobs.node.state import State, running

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


@click.group()
def broker() -> None:
    """Start and stop a RabbitMQ of your own on this machine.

    It is private: it listens on 127.0.0.1 only, keeps everything in one folder, and touches no other
    RabbitMQ. The other commands find it by themselves as long as BROKERJOBS_URL is not set.
    """


@broker.command()
@click.option(
    "--rabbitmq",
    metavar="VERSION|FOLDER",
    envvar="BROKERJOBS_RABBITMQ",
    help="A version to fetch (3.10, 4.0, 4.3), or the folder of an installation. "
    "By default the one found on this machine, else it is installed by apt-get or brew.",
)
@click.option("--yes", is_flag=True, help="Install RabbitMQ without asking if there is none.")
@_as_json
def start(rabbitmq: str | None, yes: bool, as_json: bool) -> None:
    """Start it, unless it runs; it stays when this command ends, and so do its jobs.

    It takes RabbitMQ's usual ports 5672 and 15672 if they are free, otherwise others.
    """
    from brokerjobs.node import detached
    from brokerjobs.node.broker import choose

    began = time.monotonic()
    with _documented_exit_codes():
        state, started = detached.start(lambda: choose(rabbitmq, yes=yes, say=_say))
    if rabbitmq and not started:
        _say(f"RabbitMQ {state.version} ran already; for another one: brokerjobs broker stop")
    if os.environ.get("BROKERJOBS_URL"):
        _say("BROKERJOBS_URL is set: the other commands use that one instead")
    if as_json:
        _print_json({"running": True, "started": started, **asdict(state)})
        return
    click.echo(
        f"RabbitMQ {state.version} started in {text(time.monotonic() - began)}"
        if started
        else f"RabbitMQ {state.version} runs already"
    )
    _print_details(state)


@broker.command()
@_as_json
def stop(as_json: bool) -> None:
    """Stop it in good order; its queues and jobs stay for the next start."""
    from brokerjobs.node import detached

    with _documented_exit_codes():
        stopped = detached.stop()
    if as_json:
        _print_json({"running": False, "stopped": stopped is not None})
    elif stopped is None:
        click.echo("no node runs")
    else:
        click.echo(f"RabbitMQ {stopped.version} stopped; its data stays in {stopped.folder}")


@broker.command()
@_as_json
def status(as_json: bool) -> None:
    """Say whether it runs and where; exit code 1 if it does not."""
    state = running()
    if as_json:
        _print_json({"running": True, **asdict(state)} if state else {"running": False})
    elif state is None:
        click.echo("no node runs; start one: brokerjobs broker start")
    else:
        up = text(max(0.0, time.time() - state.started_at))
        click.echo(f"RabbitMQ {state.version} has run for {up} as process {state.pid}")
        _print_details(state)
    if state is None:
        raise SystemExit(NoneRuns.exit_code)


@broker.command()
@click.option("--management", is_flag=True, help="Of the management UI (user guest, password guest).")
@_as_json
def url(management: bool, as_json: bool) -> None:
    """Print its URL and nothing else; exit code 1 if it does not run.

    For other programs: export AMQP_URL=$(brokerjobs broker url)
    """
    state = running()
    if state is None:
        raise NoneRuns("no node runs; start one: brokerjobs broker start")
    if as_json:
        _print_json({"url": state.url, "management_url": state.management_url})
    else:
        click.echo(state.management_url if management else state.url)


class NoneRuns(click.ClickException):
    """Exit code 1: there is no node to tell of."""

    exit_code = 1


class Unavailable(click.ClickException):
    """Exit code 69: no broker is to be had."""

    exit_code = 69


class Misconfigured(click.ClickException):
    """Exit code 78: what was asked for cannot be."""

    exit_code = 78


@contextmanager
def _documented_exit_codes() -> Iterator[None]:
    try:
        yield
    except ConfigurationError as error:
        raise Misconfigured(str(error)) from None
    except BrokerJobsError as error:
        raise Unavailable(str(error)) from None


def _say(line: str) -> None:
    click.echo(line, err=True)


def _print_json(value: dict[str, Any]) -> None:
    click.echo(json.dumps(value))


def _print_details(state: State) -> None:
    for name, value in (
        ("AMQP", state.url),
        ("management", f"{state.management_url}  user guest, password guest"),
        ("metrics", state.prometheus_url),
        ("data", state.folder),
        ("log", state.log),
    ):
        click.echo(f"  {name:<12}{value}")
