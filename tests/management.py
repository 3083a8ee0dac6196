"""What an operator does to a broker, through its management HTTP API, and what this process has open there."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote

from brokerjobs.node.private import PrivateNode
from tests.conftest import management

DESCRIPTORS = 1024  # more than a test process ever has open


def set_policy(node: PrivateNode, vhost: str, queue: str, **definition: object) -> None:
    """Give one queue a policy, such as `**{"max-length": 3, "overflow": "reject-publish"}`."""
    policy = {"pattern": f"^{queue}$", "definition": definition, "apply-to": "queues"}
    management(node, "PUT", f"/api/policies/{vhost}/{queue}", json.dumps(policy).encode())


def clear_policy(node: PrivateNode, vhost: str, queue: str) -> None:
    management(node, "DELETE", f"/api/policies/{vhost}/{queue}")


@contextmanager
def user(node: PrivateNode, vhost: str, name: str, **permissions: str) -> Iterator[str]:
    """A user whose password is `secret`, with these permissions: configure, write, read; gives its URL."""
    management(node, "PUT", f"/api/users/{name}", json.dumps({"password": "secret", "tags": ""}).encode())
    allowed = {"configure": "", "write": "", "read": "", **permissions}
    management(node, "PUT", f"/api/permissions/{vhost}/{name}", json.dumps(allowed).encode())
    yield f"amqp://{name}:secret@127.0.0.1:{node.ports.amqp}/{vhost}"
    management(node, "DELETE", f"/api/users/{name}")


def forbid(node: PrivateNode, vhost: str, name: str) -> None:
    """Revoke what a user may do."""
    management(node, "DELETE", f"/api/permissions/{vhost}/{name}")


def publish_message(
    node: PrivateNode, vhost: str, exchange: str, routing_key: str, payload: str, **properties: Any
) -> bool:
    """The "Publish message" box of an exchange's page; gives whether it was routed."""
    form = {
        "routing_key": routing_key,
        "payload": payload,
        "payload_encoding": "string",
        "properties": properties,
    }
    path = f"/api/exchanges/{vhost}/{quote(exchange, safe='')}/publish"
    answer = json.loads(management(node, "POST", path, json.dumps(form).encode()))
    return bool(answer["routed"])


def delete_queue(node: PrivateNode, vhost: str, queue: str) -> None:
    management(node, "DELETE", f"/api/queues/{vhost}/{quote(queue, safe='')}")


def delete_exchange(node: PrivateNode, vhost: str, exchange: str) -> None:
    management(node, "DELETE", f"/api/exchanges/{vhost}/{quote(exchange, safe='')}")


def queue(node: PrivateNode, vhost: str, name: str) -> dict[str, Any]:
    """A queue as the API describes it: `type`, `arguments`, …; its counts lag by seconds."""
    found = json.loads(management(node, "GET", f"/api/queues/{vhost}/{quote(name, safe='')}"))
    assert isinstance(found, dict)
    return found


def open_ports(node: PrivateNode) -> list[int]:
    """The local ports of this process's connections to the node's AMQP port."""
    ports = []
    for descriptor in range(3, DESCRIPTORS):
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                with socket.socket(fileno=os.dup(descriptor)) as copy:
                    if copy.family == socket.AF_INET and copy.getpeername()[1] == node.ports.amqp:
                        ports.append(copy.getsockname()[1])
    return ports


def close_connections(node: PrivateNode) -> int:
    """Close all connections of the node's user, as an operator would; gives how many this process had.

    By user, because the list of connections lags by seconds.
    """
    open_before = open_ports(node)
    management(node, "DELETE", "/api/connections/username/guest")
    return len(open_before)
