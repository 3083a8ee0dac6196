"""A topology as RabbitMQ's own definitions, for those who load it by rabbitmqctl or the management API. Pure."""

from __future__ import annotations

from typing import Any

from brokerjobs.topology import Binding, Exchange, Part, Queue, Topology

_FOLDERS = {Exchange: "exchanges", Queue: "queues", Binding: "bindings"}


def document(topology: Topology, vhost: str) -> dict[str, list[dict[str, Any]]]:
    """What `rabbitmqctl import_definitions` takes: the parts, and no users.

    A part that exists stays as it is, whatever is imported. Of users there is nothing on purpose: a file that holds
    passwords is one more place to lose them.

    Args:
        topology: the parts.
        vhost: the virtual host to put them into; it must exist.
    """
    found: dict[str, list[dict[str, Any]]] = {folder: [] for folder in _FOLDERS.values()}
    for part in topology:
        found[_FOLDERS[type(part)]].append({"vhost": vhost, **_as_json(part)})
    return found


def _as_json(part: Part) -> dict[str, Any]:
    match part:
        case Binding():
            return {
                "source": part.source,
                "destination": part.destination,
                "destination_type": "exchange" if part.to_exchange else "queue",
                "routing_key": part.key,
                "arguments": {},
            }
        case Exchange():
            return {
                "name": part.name,
                "type": part.type,
                "durable": True,
                "auto_delete": False,
                "internal": False,
                "arguments": dict(part.arguments),
            }
        case Queue():
            return {
                "name": part.name,
                "durable": True,
                "auto_delete": False,
                "arguments": dict(part.arguments),
            }
