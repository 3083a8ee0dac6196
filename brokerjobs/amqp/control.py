"""The control exchange: operators ask all workers at once, and those who know something answer.

operator ──all.pause──► jobs.control ──► an exclusive queue of each worker
operator ──all.cancel─► jobs.control ──► the same, and the stream jobs.cancelled
worker ──reply.<token>─► jobs.control ──► an exclusive queue of the operator
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import aiormq.exceptions
from aiormq.abc import AbstractChannel, DeliveredMessage

from brokerjobs.amqp.connection import LOST, Connection, ConnectionLost, deadline, explain_channel_error
from brokerjobs.amqp.wire import to_pamqp
from brokerjobs.errors import BrokerUnreachable, TopologyMismatch
from brokerjobs.message import Message
from brokerjobs.settings import Settings
from brokerjobs.topology import MARK, REPLY, TO_WORKERS, Names
from brokerjobs.transport import AsyncPublisher, Publication

STEP_TIMEOUT = 15.0  # seconds
REPLAY_TIMEOUT = 15.0  # seconds to read the stream of cancellations; the rest is read with the next session
MARK_TIMEOUT = 5.0  # seconds
QUIET = 0.5  # seconds without a message, where no mark tells the end
WINDOW = 500  # messages of the stream at once

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Command:
    """What an operator asks.

    Args:
        verb: pause, resume, cancel, ping or handled.
        body: its details, as JSON carries them.
    """

    verb: str
    body: Body

    @property
    def reply_to(self) -> str:
        token = self.body.get("reply")
        return f"{REPLY}.{token}" if isinstance(token, str) else ""


def note(key: str, body: Body) -> Message:
    """A message of the control exchange."""
    return Message(job="jobs.control", routing_key=key, body=json.dumps(body).encode(), priority=None)


async def listen(
    connection: Connection, names: Names, settings: Settings, on_command: Callable[[Command], None]
) -> None:
    """Hear what operators ask, until the connection ends.

    Raises:
        AccessRefused: the user may not declare a queue of its own there.
        TopologyMismatch: there is no control exchange.
        ConnectionLost: worth another try.
    """

    async def take(message: DeliveredMessage) -> None:
        verb = (message.delivery.routing_key or "").partition(".")[2]  # type: ignore[union-attr]
        on_command(Command(verb, read_body(message.body)))

    queue = f"{names.control}.{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    await _consume_own(connection, names, settings, queue, f"{TO_WORKERS}.*", take)


async def _consume_own(
    connection: Connection, names: Names, settings: Settings, queue: str, key: str, take: Any
) -> AbstractChannel:
    """Consume an exclusive queue that hears these keys."""
    channel = await connection.channel(confirms=True)
    with _explained(f"exchange {names.control!r}", settings):
        async with deadline(STEP_TIMEOUT, "listen to the control exchange"):
            await channel.queue_declare(queue, exclusive=True, auto_delete=True)
            await channel.queue_bind(queue, exchange=names.control, routing_key=key)
            await channel.basic_consume(queue, take, no_ack=True)
    return channel


@contextmanager
def _explained(what: str, settings: Settings) -> Iterator[None]:
    """The client's errors in our words."""
    try:
        yield
    except aiormq.exceptions.ChannelAccessRefused as error:
        raise explain_channel_error(error, settings) from None
    except aiormq.exceptions.ChannelNotFoundEntity:
        raise TopologyMismatch(
            f"there is no {what} at {settings.address}: start a worker, or run `brokerjobs topology apply`"
        ) from None
    except LOST as error:
        raise ConnectionLost(str(error)) from None


async def cancellations(
    connection: Connection, names: Names, settings: Settings, publisher: AsyncPublisher, since: int
) -> tuple[list[Body], int]:
    """All cancellations in the stream, from an offset on, up to a mark that is published now.

    Where the mark cannot be published, as during a memory alarm, the stream is read until nothing more comes.

    Args:
        connection: to read with.
        names: of the stream.
        settings: for the words of errors.
        publisher: publishes the mark.
        since: the offset to begin at; 0 is the oldest that is kept.

    Returns:
        The cancellations, oldest first, and the offset to begin at next time.

    Raises:
        AccessRefused, TopologyMismatch: they cannot be read.
        ConnectionLost: worth another try.
    """
    token = uuid.uuid4().hex
    arrived: asyncio.Queue[DeliveredMessage | None] = asyncio.Queue()
    lost = asyncio.create_task(connection.wait_closed())
    lost.add_done_callback(lambda _: arrived.put_nowait(None))
    mark = Publication(names.control, MARK, note(MARK, {"mark": token}))
    marking = asyncio.create_task(publisher.publish(mark, timeout=MARK_TIMEOUT))
    marking.add_done_callback(lambda task: task.cancelled() or task.exception())
    try:
        with _explained(f"stream {names.cancelled!r}", settings):
            async with connection.scratch_channel() as channel:
                async with deadline(STEP_TIMEOUT, "read cancellations"):
                    await channel.basic_qos(prefetch_count=WINDOW)
                    await channel.basic_consume(
                        names.cancelled, _put_into(arrived), arguments={"x-stream-offset": since}
                    )
                return await _read(channel, arrived, marking, token, since)
    finally:
        lost.cancel()
        marking.cancel()


async def _read(
    channel: AbstractChannel,
    arrived: asyncio.Queue[DeliveredMessage | None],
    marking: asyncio.Task[None],
    token: str,
    next_offset: int,
) -> tuple[list[Body], int]:
    found: list[Body] = []
    clock = asyncio.get_running_loop().time
    ends, since = clock() + REPLAY_TIMEOUT, next_offset
    while True:
        if clock() > ends:  # a stream that was made anew begins at 0 again
            return found, next_offset if next_offset > since else 0
        try:
            async with asyncio.timeout(QUIET):
                message = await arrived.get()
        except TimeoutError:
            if marking.done() and (marking.cancelled() or marking.exception() is not None):
                return found, next_offset
            continue
        if message is None:
            raise ConnectionLost("the connection was lost")
        await channel.basic_ack(message.delivery.delivery_tag or 0, wait=False)  # type: ignore[union-attr]
        offset = (message.header.properties.headers or {}).get("x-stream-offset")
        next_offset = offset + 1 if isinstance(offset, int) else next_offset
        body = read_body(message.body)
        if body.get("mark") == token:
            return found, next_offset
        found.append(body)


def _put_into(arrived: asyncio.Queue[DeliveredMessage | None]) -> Any:
    async def take(message: DeliveredMessage) -> None:
        arrived.put_nowait(message)

    return take


class Line:
    """An operator's line to all workers."""

    def __init__(
        self,
        connection: Connection,
        settings: Settings,
        channel: AbstractChannel,
        token: str,
        replies: asyncio.Queue[Body],
    ) -> None:
        self._alarm = connection.alarm
        self._settings = settings
        self._names = Names(settings.namespace)
        self._channel = channel
        self._token = token
        self._replies = replies

    async def say(self, key: str, body: Body, *, must_arrive: bool = False) -> None:
        """Publish with confirm.

        Args:
            key: of the control exchange.
            body: the details; where to answer is added.
            must_arrive: raise when no queue takes it; not for what only running workers hear.

        Raises:
            ConnectionLost: it may have arrived.
            BrokerUnreachable: it will arrive when RabbitMQ's alarm has passed, or not.
        """
        message = note(key, {**body, "reply": self._token})
        try:
            async with deadline(STEP_TIMEOUT, "publish to the control exchange"):
                await self._channel.basic_publish(
                    message.body,
                    exchange=self._names.control,
                    routing_key=key,
                    properties=to_pamqp(message),
                    mandatory=must_arrive,
                )
        except LOST as error:
            if self._alarm.is_on:
                raise BrokerUnreachable(
                    f"RabbitMQ at {self._settings.address} blocks publishers, also of a command like this: "
                    "a memory or disk alarm; free some there, and do it again"
                ) from None
            raise ConnectionLost(str(error)) from None

    async def replies(self, wait: float) -> AsyncIterator[Body]:
        """What comes back within some seconds."""
        ends = asyncio.get_running_loop().time() + wait
        while True:
            try:
                async with asyncio.timeout_at(ends):
                    body = await self._replies.get()
            except TimeoutError:
                return
            yield body


@asynccontextmanager
async def line(connection: Connection, names: Names, settings: Settings) -> AsyncIterator[Line]:
    """A line to all workers; raises as `listen` does."""
    token, replies = uuid.uuid4().hex, asyncio.Queue[Body]()

    async def take(message: DeliveredMessage) -> None:
        replies.put_nowait(read_body(message.body))

    queue = f"{names.control}.{REPLY}-{token[:8]}"
    channel = await _consume_own(connection, names, settings, queue, f"{REPLY}.{token}", take)
    yield Line(connection, settings, channel, token, replies)


def read_body(raw: bytes) -> Body:
    """The JSON object in a message; anybody may publish here, so what is none is an empty one."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}
