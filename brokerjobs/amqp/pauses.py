"""The mark of a paused queue: a queue `<queue>.paused` that holds one message, which says who paused it and why."""

from __future__ import annotations

from typing import Any

import aiormq.exceptions

from brokerjobs.amqp.connection import Connection, deadline
from brokerjobs.amqp.control import Line, read_body
from brokerjobs.topology import Names

UNKNOWN = "an operator paused it"
STEP_TIMEOUT = 15.0  # seconds
ARGUMENTS: dict[str, Any] = {
    "x-queue-type": "classic",
    "x-max-length": 1,
}  # a newer reason replaces an older one


async def put_up(connection: Connection, line: Line, names: Names, queue: str, why: str) -> None:
    """Leave the mark; when this returns, it is confirmed.

    Raises:
        AccessRefused: the user may not declare it.
        ConnectionLost: it may be there or not.
    """
    mark, key = names.paused(queue), f"paused.{queue}"
    async with connection.scratch_channel() as channel, deadline(STEP_TIMEOUT, f"declare {mark}"):
        await channel.queue_declare(mark, durable=True, arguments=ARGUMENTS)
        await channel.queue_bind(mark, exchange=names.control, routing_key=key)
    await line.say(key, {"why": why}, must_arrive=True)


async def take_down(connection: Connection, names: Names, queue: str) -> None:
    """Remove the mark, if there is one.

    Raises:
        AccessRefused: the user may not delete it.
        ConnectionLost: it may be there or not.
    """
    mark = names.paused(queue)
    async with connection.scratch_channel() as channel, deadline(STEP_TIMEOUT, f"delete {mark}"):
        await channel.queue_delete(mark)


async def reason(connection: Connection, names: Names, queue: str) -> str | None:
    """Why the queue is paused; None when it is not.

    Raises:
        ConnectionLost: the connection ended meanwhile.
    """
    mark = names.paused(queue)
    async with connection.scratch_channel() as channel, deadline(STEP_TIMEOUT, f"look for {mark}"):
        try:
            await channel.queue_declare(mark, passive=True)
        except aiormq.exceptions.ChannelNotFoundEntity:
            return None
        try:
            got = await channel.basic_get(mark)
        except aiormq.exceptions.ChannelAccessRefused:  # it is paused all the same
            return UNKNOWN
    # With its channel the mark goes back to its place.
    return str(read_body(got.body).get("why") or UNKNOWN)
