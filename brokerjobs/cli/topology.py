"""`brokerjobs topology show|apply|check|definitions|permissions`: what the consumers need in RabbitMQ."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from brokerjobs import definitions, discovery, permissions, provision, settings, topology
from brokerjobs.amqp import declare
from brokerjobs.amqp.connection import Connection
from brokerjobs.capabilities import Capabilities
from brokerjobs.cli.completion import complete_queue
from brokerjobs.cli.exits import CONFIGURATION, DONE
from brokerjobs.cli.options import consumers_option, namespace_option, url_option
from brokerjobs.cli.output import json_option, print_json, print_table
from brokerjobs.consumer import Consumer
from brokerjobs.errors import ConfigurationError
from brokerjobs.settings import Settings
from brokerjobs.topology import Binding, Exchange, Names, Part, Queue, Topology

queues_argument = click.argument("queues", nargs=-1, metavar="[QUEUE…]", shell_complete=complete_queue)
version_option = click.option(
    "--rabbitmq", metavar="VERSION", default="4.3", help="For which version, such as 3.10 [4.3]."
)


@click.group()
def command() -> None:
    """Exchanges, queues and bindings of the declared consumers."""


@command.command()
@queues_argument
@version_option
@json_option
@consumers_option
@namespace_option
def show(queues: tuple[str, ...], rabbitmq: str, as_json: bool, **given: Any) -> None:
    """Print the topology; no broker is asked."""
    parts = _needs(settings.load(**given), queues, rabbitmq)
    if as_json:
        print_json([_as_json(part) for part in parts])
        return
    print_table(["kind", "name", "details"], [(_kind(part), *_details(part)) for part in parts])


@command.command()
@queues_argument
@json_option
@consumers_option
@namespace_option
@url_option
def apply(queues: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Declare what is missing; what is there as needed stays untouched."""
    chosen = settings.load(**given)
    kept = asyncio.run(_apply(discovery.find(chosen.consumers, queues), chosen))
    if as_json:
        print_json({"applied": True, "kept": kept})
        return
    for difference in kept:
        click.echo(f"kept: {difference}", err=True)
    click.echo(f"the topology is in place at {chosen.address}")


@command.command()
@queues_argument
@json_option
@consumers_option
@namespace_option
@url_option
def check(queues: tuple[str, ...], as_json: bool, **given: Any) -> int:
    """See whether every exchange and queue exists; exit code 78 if not.

    AMQP can only tell whether something exists, not with which arguments; `apply` finds differences.
    """
    chosen = settings.load(**given)
    missing = asyncio.run(_missing(discovery.find(chosen.consumers, queues), chosen))
    if as_json:
        print_json({"complete": not missing, "missing": [part.name for part in missing]})
    elif missing:
        click.echo(f"missing at {chosen.address}: {', '.join(part.name for part in missing)}")
        click.echo("run `brokerjobs topology apply`")
    else:
        click.echo(f"all there at {chosen.address}")
    return CONFIGURATION if missing else DONE


@command.command(
    "definitions", short_help="Print the topology as definitions, for rabbitmqctl import_definitions."
)
@queues_argument
@version_option
@consumers_option
@namespace_option
@url_option
def definitions_(queues: tuple[str, ...], rabbitmq: str, **given: Any) -> None:
    """Print the topology as definitions, for `rabbitmqctl import_definitions` or the management API.

    They are for the virtual host of the URL, and hold no users; RabbitMQ is not asked.
    """
    chosen = settings.load(**given)
    print_json(definitions.document(_needs(chosen, queues, rabbitmq), chosen.vhost))


@command.command(
    "permissions", short_help="Print the rabbitmqctl commands for users with no more than they need."
)
@queues_argument
@click.option(
    "--without-delays",
    is_flag=True,
    help="Publishers may not send with a delay; with it they reach every queue of the namespace.",
)
@json_option
@consumers_option
@namespace_option
@url_option
def permissions_(queues: tuple[str, ...], without_delays: bool, as_json: bool, **given: Any) -> None:
    """Print the rabbitmqctl commands that make a user for each kind of program, with no more than it needs.

    The users: deploy applies the topology, publisher sends jobs, worker runs them with topology = check, operator
    looks at queues and replays dead letters. The virtual host is that of the URL; RabbitMQ is not asked. Run the
    commands where RabbitMQ runs.
    """
    chosen = settings.load(**given)
    bindings = {consumer.queue: consumer.bind for consumer in discovery.find(chosen.consumers, queues)}
    found = permissions.roles(Names(chosen.namespace), bindings, delays=not without_delays)
    if as_json:
        print_json({"vhost": chosen.vhost, "users": [asdict(role) for role in found]})
        return
    for line in permissions.commands(found, chosen.vhost):
        click.echo(line)


def _needs(chosen: Settings, queues: Sequence[str], rabbitmq: str) -> Topology:
    if not re.match(r"\d+\.\d", rabbitmq):
        raise ConfigurationError(f"--rabbitmq must be a version such as 3.10 or 4.3, not {rabbitmq!r}")
    capabilities = Capabilities.of({"product": "RabbitMQ", "version": rabbitmq})
    return provision.needs_of_all(discovery.find(chosen.consumers, queues), capabilities, chosen)


async def _apply(consumers: Sequence[Consumer], chosen: Settings) -> list[str]:
    connection = await Connection.open(chosen, "topology")
    try:
        await declare.apply(connection, topology.shared(Names(chosen.namespace)), chosen)
        return await provision.apply(connection, consumers, chosen)
    finally:
        await connection.close()


async def _missing(consumers: Sequence[Consumer], chosen: Settings) -> list[Exchange | Queue]:
    connection = await Connection.open(chosen, "topology")
    try:
        return await provision.missing(connection, consumers, chosen)
    finally:
        await connection.close()


def _kind(part: Part) -> str:
    return type(part).__name__.lower()


def _details(part: Part) -> tuple[str, str]:
    match part:
        case Exchange():
            return part.name, " ".join([part.type, *_arguments(part)])
        case Queue():
            return part.name, " ".join(_arguments(part))
        case Binding():
            return part.destination, f"from {part.source} by {part.key!r}"


def _arguments(part: Exchange | Queue) -> list[str]:
    return [f"{name}={value}" for name, value in part.arguments.items()]


def _as_json(part: Part) -> dict[str, Any]:
    match part:
        case Exchange():
            return {
                "kind": "exchange",
                "name": part.name,
                "type": part.type,
                "arguments": dict(part.arguments),
            }
        case Queue():
            return {"kind": "queue", "name": part.name, "arguments": dict(part.arguments)}
        case Binding():
            return {
                "kind": "binding",
                "source": part.source,
                "destination": part.destination,
                "to": "exchange" if part.to_exchange else "queue",
                "key": part.key,
            }
