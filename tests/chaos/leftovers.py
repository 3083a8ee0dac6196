"""What lies in queues, read by a client that shares nothing with the code under test."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pika

from brokerjobs.node.private import PrivateNode
from tests.chaos.history import Found, Place
from tests.conftest import management


def queues(node: PrivateNode) -> list[str]:
    """All durable queues of the node's virtual host, whoever made them; not streams, which hold no jobs."""
    listed = json.loads(management(node, "GET", "/api/queues/%2F?columns=name,durable,type"))
    return sorted(queue["name"] for queue in listed if queue["durable"] and "stream" not in queue["type"])


def place_of(queue: str) -> Place:
    if queue.endswith(".dead"):
        return "dead"
    if queue.endswith("jobs.unrouted"):
        return "unrouted"
    return "waiting" if ".delay." in queue else "work"


def waiting(url: str, names: Iterable[str]) -> int:
    """How many messages are ready in all queues but those for dead letters."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        channel = connection.channel()
        return sum(
            channel.queue_declare(name, passive=True).method.message_count
            for name in names
            if place_of(name) != "dead"
        )
    finally:
        connection.close()


def read_all(url: str, names: Iterable[str]) -> tuple[list[Found], dict[str, str]]:
    """Every message in these queues, which stay there; and the queues that RabbitMQ cannot read, with its words."""
    found: list[Found] = []
    unreadable: dict[str, str] = {}
    for name in names:
        connection = pika.BlockingConnection(pika.URLParameters(url))
        try:
            found += _read(connection.channel(), name)
        except pika.exceptions.AMQPError as error:
            unreadable[name] = str(error)
        finally:
            if connection.is_open:
                connection.close()
    return found, unreadable


def _read(channel: pika.adapters.blocking_connection.BlockingChannel, name: str) -> Iterable[Found]:
    while True:
        method, properties, _ = channel.basic_get(name)
        if method is None or properties is None:
            return
        headers = properties.headers or {}
        yield Found(
            id=properties.message_id,
            queue=name,
            place=place_of(name),
            hop=headers.get("brokerjobs-hop", 0),
            reason=str(headers.get("brokerjobs-reason") or headers.get("x-first-death-reason") or ""),
        )
