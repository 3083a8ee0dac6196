"""A plain AMQP view of the broker for tests, apart from the code under test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pika


@dataclass(frozen=True)
class Found:
    """A message as it lies in a queue."""

    routing_key: str
    exchange: str
    properties: Any
    body: bytes

    @property
    def headers(self) -> dict[str, Any]:
        return dict(self.properties.headers or {})


@contextmanager
def connection(url: str) -> Iterator[Any]:
    opened = pika.BlockingConnection(pika.URLParameters(url))
    try:
        yield opened
    finally:
        if opened.is_open:
            opened.close()


@contextmanager
def channel(url: str) -> Iterator[Any]:
    with connection(url) as opened:
        yield opened.channel()


def ready(url: str, queue: str) -> int:
    """How many messages wait in a queue."""
    with channel(url) as open_channel:
        return int(open_channel.queue_declare(queue, passive=True).method.message_count)


def peek(url: str, queue: str) -> list[Found]:
    """All messages that wait in a queue; they stay there."""
    found = []
    with channel(url) as open_channel:
        while (got := open_channel.basic_get(queue))[0] is not None:
            method, properties, body = got
            found.append(Found(method.routing_key, method.exchange, properties, body))
    return found


def publish(url: str, routing_key: str, body: bytes, *, exchange: str = "jobs", **properties: Any) -> None:
    """Publish as any AMQP client would, with no header of ours unless given."""
    with channel(url) as open_channel:
        open_channel.confirm_delivery()
        sent = pika.BasicProperties(delivery_mode=2, **properties)  # type: ignore[no-untyped-call]
        open_channel.basic_publish(exchange, routing_key, body, sent, mandatory=True)
