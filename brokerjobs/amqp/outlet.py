"""Publish on one confirm channel past the client library, and hear the broker's verdict on each message.

RabbitMQ numbers what it gets on a channel from 1, and confirms by these numbers, one or all up to one. What it cannot
route it returns before it confirms it; a returned message carries no number, only its own id.
"""

from __future__ import annotations

import asyncio
from functools import cache
from struct import Struct
from typing import Any

import pamqp.frame
from pamqp import body, commands
from pamqp import header as pamqp_header

from brokerjobs.amqp import encode
from brokerjobs.amqp.frames import ACK, CHANNEL_CLOSE, METHOD, NACK, RETURN, BrokenStream, Content
from brokerjobs.amqp.properties import read_content_header

CROWDED = 256 * 1024  # bytes that wait to be sent

_VERDICT = Struct(">QB")
_REPLY = Struct(">HB")

Verdict = asyncio.Future[None]


class Returned(Exception):
    """No queue is bound for it; says what RabbitMQ says."""


class Refused(Exception):
    """RabbitMQ could not keep it (nack)."""


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
        self._published = 0
        self._waiting: dict[int, tuple[Verdict, str]] = {}
        self._by_id: dict[str, int] = {}
        self._unsent: list[bytes] = []
        self._closed: BaseException | None = None
        self._returns = Content(RETURN, self._returned)

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
        self._published += 1
        id = properties["message_id"]
        self._waiting[self._published] = verdict, id
        self._by_id[id] = self._published
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

    def tap(self, kind: int, data: bytes, at: int, end: int) -> bool:
        """Take verdicts and returned messages; see, and leave to the client library, that the channel closes."""
        if kind == METHOD:
            method = data[at : at + 4]
            if method in (ACK, NACK):
                self._judge(data[at + 4 : end], error=None if method == ACK else Refused())
                return True
            if method == CHANNEL_CLOSE:
                self._unsent.clear()
                self._closed = self._closed or ConnectionError("the channel is closing")
                return False
        return self._returns.take(kind, data, at, end)

    def end(self, why: BaseException) -> None:
        """The channel is closed: nothing more is sent, and what waits for its verdict has none."""
        self._closed = why
        self._unsent.clear()
        waiting, self._waiting = self._waiting, {}
        self._by_id.clear()
        for verdict, _ in waiting.values():
            _tell(verdict, why)

    def _send(self) -> None:
        unsent, self._unsent = self._unsent, []
        if unsent and not self._writer.is_closing():
            self._writer.write(b"".join(unsent))

    def _judge(self, payload: bytes, *, error: Exception | None) -> None:
        if len(payload) != _VERDICT.size:
            raise BrokenStream("RabbitMQ sent a confirm that is cut off")
        number, bits = _VERDICT.unpack(payload)
        if not 0 < number <= self._published:
            raise BrokenStream(f"RabbitMQ confirmed message {number} of {self._published}")
        if not bits & 1:
            self._settle(number, error)
            return
        for each in list(self._waiting):  # in the order in which they were sent
            if each > number:
                break
            self._settle(each, error)

    def _settle(self, number: int, error: Exception | None) -> None:
        found = self._waiting.pop(number, None)
        if found is None:  # it came back, and was told so
            return
        verdict, id = found
        if self._by_id.get(id) == number:
            del self._by_id[id]
        _tell(verdict, error)

    def _returned(self, method: bytes, head: bytes, _: bytes) -> None:
        code, length = _REPLY.unpack_from(method, 4) if len(method) >= 4 + _REPLY.size else (0, 0)
        text = method[4 + _REPLY.size : 4 + _REPLY.size + length].decode(errors="replace")
        id = read_content_header(head).properties.get("message_id", "")
        number = self._by_id.get(id)
        if number is None:
            raise BrokenStream("RabbitMQ returned a message that was not sent")
        self._settle(number, Returned(f"{code} {text}"))


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
