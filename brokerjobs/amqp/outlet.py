"""Publish from an event loop on one confirm channel past the client library, and await RabbitMQ's verdicts."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

import pamqp.frame
from pamqp import body, commands
from pamqp import header as pamqp_header

from brokerjobs.amqp import encode
from brokerjobs.amqp.frames import CHANNEL_CLOSE, METHOD
from brokerjobs.amqp.unconfirmed import Unconfirmed

CROWDED = 256 * 1024  # bytes that wait to be sent

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
        self._channel = channel
        self._writer = writer
        self._largest = largest
        self._loop = asyncio.get_running_loop()
        self._unconfirmed: Unconfirmed[Verdict] = Unconfirmed(_tell)
        self._unsent: list[bytes] = []
        self._closed: BaseException | None = None

    def publish(self, exchange: str, routing_key: str, properties: dict[str, Any], body: bytes) -> Verdict:
        """Send one message, mandatory; what is sent in one turn of the loop leaves in one write.

        Args:
            exchange, routing_key: where to.
            properties: with a `message_id`, of which no other may be under way here.
            body: all of it.

        Raises:
            Unwritable: AMQP has no form for it; nothing was sent.
        """
        first = encode.publish(self._channel, exchange, routing_key)
        rest = encode.content(self._channel, properties, body, self._largest)
        verdict: Verdict = self._loop.create_future()
        if self._closed is not None:
            verdict.set_exception(self._closed)
            return verdict
        self._unconfirmed.add(verdict, properties["message_id"])
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append(first)
        self._unsent += rest
        return verdict

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
        for verdict in self._unconfirmed.clear():
            _tell(verdict, why)

    def _send(self) -> None:
        unsent, self._unsent = self._unsent, []
        if unsent and not self._writer.is_closing():
            self._writer.write(b"".join(unsent))


def _tell(verdict: Verdict, error: BaseException | None) -> None:
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
    properties: dict[str, Any] = {
        "headers": {"n": 7, "s": "x", "yes": True},
        "message_id": "7",
        "type": "a.b",
    }
    by_client = (
        commands.Basic.Publish(exchange="jobs", routing_key="a.b", mandatory=True),
        pamqp_header.ContentHeader(
            body_size=2,
            properties=commands.Basic.Properties(
                headers=properties["headers"], message_id="7", message_type="a.b"
            ),
        ),
        body.ContentBody(b"{}"),
    )
    try:
        ours = [encode.publish(3, "jobs", "a.b"), *encode.content(3, properties, b"{}", 4096)]
        publish, head, content = [pamqp.frame.unmarshal(frame)[2] for frame in ours]
        return (
            dict(publish) == dict(by_client[0])  # type: ignore[arg-type]
            and dict(head.properties) == dict(by_client[1].properties)  # type: ignore[union-attr]
            and (head.body_size, content.value) == (2, b"{}")  # type: ignore[union-attr]
        )
    except Exception:
        return False
