"""Publish from an event loop on one confirm channel past the client library, and await RabbitMQ's verdicts."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pamqp.frame

from brokerjobs.amqp import encode
from brokerjobs.amqp.frames import CHANNEL_CLOSE, METHOD
from brokerjobs.amqp.unconfirmed import Unconfirmed
from brokerjobs.amqp.wire import to_pamqp
from brokerjobs.message import Message

CROWDED = 256 * 1024  # bytes that wait to be sent
ENOUGH = 16 * 1024  # bytes of bodies that are worth a write of their own: RabbitMQ begins on these meanwhile

Tell = Callable[[BaseException | None], None]
Verdict = asyncio.Future[None]
"""Of a message: None, or raises Returned or Refused, or what has ended the channel before."""


class Outlet:
    """One channel's.

    Args:
        channel: its number.
        writer: of the connection.
        largest: bytes of a frame, as agreed on.
    """

    def __init__(self, channel: int, writer: asyncio.StreamWriter, largest: int) -> None:
        self._envelopes = encode.Envelopes(channel, largest)
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._unconfirmed: Unconfirmed[Tell] = Unconfirmed(operator.call)
        self._unsent: list[bytes] = []
        self._size = 0
        self._closed: BaseException | None = None

    @property
    def is_open(self) -> bool:
        """Whether it sends what is published."""
        return self._closed is None

    def publish(self, exchange: str, routing_key: str, message: Message) -> Verdict:
        """Send one message, as `send` does; gives its verdict.

        Raises:
            Unwritable: AMQP has no form for it; nothing was sent.
        """
        verdict: Verdict = self._loop.create_future()
        self.send(exchange, routing_key, message, partial(_settle, verdict))
        return verdict

    def send(self, exchange: str, routing_key: str, message: Message, tell: Tell) -> None:
        """Send one message, mandatory; small ones of one turn of the loop leave together.

        Args:
            exchange, routing_key: where to.
            message: no other of its id may be under way here.
            tell: told once of its verdict.

        Raises:
            Unwritable: AMQP has no form for it; nothing was sent.
        """
        frames = self._envelopes.frames(exchange, routing_key, message)
        if self._closed is not None:
            tell(self._closed)
            return
        self._unconfirmed.add(tell, message.id)
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent += frames
        self._size += len(message.body)
        if self._size > ENOUGH:
            self._send()

    @property
    def is_crowded(self) -> bool:
        """Whether more waits to be sent than is good; then wait for `room`."""
        return self._writer.transport.get_write_buffer_size() > CROWDED

    async def room(self) -> None:
        """Return when what was sent has left."""
        await self._writer.drain()

    def tap(self, kind: int, data: bytes, at: int, end: int) -> int:
        """Take verdicts and returned messages; see, and leave to the client library, that the channel closes."""
        if kind == METHOD and data[at : at + 4] == CHANNEL_CLOSE:
            self._unsent.clear()
            self._closed = self._closed or ConnectionError("the channel is closing")
            return 0
        return self._unconfirmed.tap(kind, data, at, end)

    def end(self, why: BaseException) -> None:
        """The channel is closed: nothing more is sent, and what waits for its verdict has none."""
        self._closed = why
        self._unsent.clear()
        for tell in self._unconfirmed.clear():
            tell(why)

    def _send(self) -> None:
        unsent, self._unsent, self._size = self._unsent, [], 0
        if unsent and not self._writer.is_closing():
            self._writer.write(b"".join(unsent))


def _settle(verdict: Verdict, error: BaseException | None) -> None:
    if verdict.done():  # nobody waits any more
        return
    if error is None:
        verdict.set_result(None)
    else:
        verdict.set_exception(error)
        verdict.exception()  # whoever waited may be gone


@cache
def agrees_with_client() -> bool:
    """Whether a message is here what it is to the client library that is installed."""
    try:
        return all(map(_agrees_on, encode.SAMPLES))
    except Exception:
        return False


def _agrees_on(message: Message) -> bool:
    data = b"".join(encode.Envelopes(3, 4096).frames("jobs", "a.b", message))
    read: list[Any] = []
    while data:
        length, _, frame = pamqp.frame.unmarshal(data)
        read.append(frame)
        data = data[length:]
    publish, head, content = read
    return (
        (publish.exchange, publish.routing_key, publish.mandatory) == ("jobs", "a.b", True)
        and dict(head.properties) == dict(to_pamqp(message))
        and (head.body_size, content.value) == (len(message.body), message.body)
    )
