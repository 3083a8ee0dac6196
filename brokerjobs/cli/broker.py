"""`brokerjobs broker`: a RabbitMQ of one's own for daily work."""

from __future__ import annotations

import os
import time
from dataclasses import asdict

import click

from brokerjobs.cli import exits
from brokerjobs.cli.output import json_option, print_json
from brokerjobs.durations import text
from brokerjobs.node.state import State, read, running

NONE_RUNS = "no node runs; start one: brokerjobs broker start"


@click.group()
def command() -> None:
    """Start and stop a RabbitMQ of your own on this machine.

    It is private: it listens on 127.0.0.1 only, keeps everything in one folder, and touches no other
    RabbitMQ. The other commands find it by themselves as long as BROKERJOBS_URL is not set.
    """


@command.command(short_help="Start it, unless it runs.")
@click.option(
    "--rabbitmq",
    metavar="VERSION|FOLDER",
    envvar="BROKERJOBS_RABBITMQ",
    help="A version to fetch (3.10, 4.0, 4.3), or the folder of an installation. "
    "By default the one found on this machine, else it is installed by apt-get or brew.",
)
@click.option("--yes", is_flag=True, help="Install RabbitMQ without asking if there is none.")
@json_option
def start(rabbitmq: str | None, yes: bool, as_json: bool) -> None:
    """Start it, unless it runs; it stays when this command ends, and so do its jobs.

    It takes RabbitMQ's usual ports 5672 and 15672 if they are free, otherwise others.
    """
    from brokerjobs.node import detached
    from brokerjobs.node.broker import choose
    from brokerjobs.node.fetch import SUITES

    began, last = time.monotonic(), read()
    state, started = detached.start(lambda: choose(rabbitmq, yes=yes, say=_say))
    if rabbitmq in SUITES and not state.version.startswith(f"{rabbitmq}."):
        _say(f"it is not RabbitMQ {rabbitmq}: for that, first `brokerjobs broker stop`")
    if started and last is not None and last.folder != state.folder:
        _say(
            f"it has none of the jobs of RabbitMQ {last.version}, which ran last; they stay in {last.folder}: "
            "for them, `brokerjobs broker stop`, and start that one by --rabbitmq"
        )
    if os.environ.get("BROKERJOBS_URL"):
        _say("BROKERJOBS_URL is set: the other commands use that one instead")
    if as_json:
        print_json({"running": True, "started": started, **asdict(state)})
        return
    click.echo(
        f"RabbitMQ {state.version} started in {text(time.monotonic() - began)}"
        if started
        else f"RabbitMQ {state.version} runs already"
    )
    _print_details(state)


@command.command(short_help="Stop it; its data stays.")
@json_option
def stop(as_json: bool) -> None:
    """Stop it in good order; its queues and jobs stay for the next start."""
    from brokerjobs.node import detached

    stopped = detached.stop()
    if as_json:
        print_json({"running": False, "stopped": stopped is not None})
    elif stopped is None:
        click.echo("no node runs")
    else:
        click.echo(f"RabbitMQ {stopped.version} stopped; its data stays in {stopped.folder}")


@command.command(short_help="Say whether it runs and where.")
@json_option
def status(as_json: bool) -> None:
    """Say whether it runs and where; exit code 1 if it does not."""
    state = running()
    if as_json:
        print_json({"running": True, **asdict(state)} if state else {"running": False})
    elif state is None:
        click.echo(NONE_RUNS)
    else:
        up = text(max(0.0, time.time() - state.started_at))
        click.echo(f"RabbitMQ {state.version} has run for {up} as process {state.pid}")
        _print_details(state)
    if state is None:
        raise SystemExit(exits.FAILURE)


@command.command(short_help="Print its URL and nothing else.")
@click.option("--management", is_flag=True, help="Of the management UI (user guest, password guest).")
@json_option
def url(management: bool, as_json: bool) -> None:
    """Print its URL and nothing else; exit code 1 if it does not run.

    For other programs: export AMQP_URL=$(brokerjobs broker url)
    """
    state = running()
    if state is None:
        raise click.ClickException(NONE_RUNS)
    if as_json:
        print_json({"url": state.url, "management_url": state.management_url})
    else:
        click.echo(state.management_url if management else state.url)


def _say(line: str) -> None:
    click.echo(line, err=True)


def _print_details(state: State) -> None:
    for name, value in (
        ("AMQP", state.url),
        ("management", f"{state.management_url}  user guest, password guest"),
        ("metrics", state.prometheus_url),
        ("data", state.folder),
        ("log", state.log),
    ):
        click.echo(f"  {name:<12}{value}")
