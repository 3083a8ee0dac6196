"""What fuzzing begins with: frames as RabbitMQ sends them, and those that have done harm."""

from __future__ import annotations

from struct import pack
from typing import Any

import pamqp.frame
from pamqp import body, commands
from pamqp.header import ContentHeader

from brokerjobs.amqp import frames
from brokerjobs.amqp.wire import to_pamqp
from brokerjobs.message import Message
from tests import hostile
from tests.fuzz.targets import CHANNEL, LARGEST, frames_in, written

MESSAGE = Message(
    job="emails.welcome",
    routing_key="emails.welcome",
    id="0190163d-8694-739b-aea5-966c26f8ad91",
    timestamp=1_700_000_000,
    priority=4,
    attempt=3,
    correlation_id="order-17",
    reply_to="answers",
    headers={"tenant": "acme", "big": 2**40, "yes": True},
    marks={"error": "ConnectionError: gateway is away", "history": "[]"},
)


def _marshal(*parts: Any, channel: int = CHANNEL) -> bytes:
    return b"".join(pamqp.frame.marshal(part, channel) for part in parts)


def _content(raw: bytes, part: int = 1000) -> list[Any]:
    pieces = [body.ContentBody(raw[at : at + part]) for at in range(0, len(raw), part)]
    return [ContentHeader(0, len(raw), to_pamqp(MESSAGE)), *pieces]


def _deliver(tag: int, *, redelivered: bool = False) -> commands.Basic.Deliver:
    return commands.Basic.Deliver("ctag1.1", tag, redelivered, "jobs", "emails.welcome")


def _streams() -> list[bytes]:
    one = _marshal(_deliver(1), *_content(b'{"user_id": 7}'))
    parts = _marshal(_deliver(2, redelivered=True), *_content(b"x" * 30, part=7))
    empty = _marshal(_deliver(1), *_content(b""))
    others = _marshal(commands.Basic.QosOk(), commands.Channel.Close(404, "NOT_FOUND", 60, 20)) + _marshal(
        _deliver(1), *_content(b"for another"), channel=CHANNEL + 1
    )
    return [
        written(one),
        written(one + parts, 3, 40, 90, 91),
        written(empty + others, 8, 9),
        written(_marshal(_deliver(1), _deliver(1), *_content(b"again"))),
        _as_it_is(one),
        *(_as_it_is(wrong) for wrong in _wrong(one)),
    ]


def _as_it_is(raw: bytes) -> bytes:
    return b"\x00\x03" + pack(">H", len(raw)) + raw


def _wrong(one: bytes) -> list[bytes]:
    """A delivery with one thing wrong."""
    deliver, head, content = frames_in(one)
    return [
        one[:-1] + b"\x00",
        deliver + head[:-1] + b"\xcd" + content,
        deliver + frames.frame(frames.BODY, CHANNEL, b"no header"),
        deliver + head + head,
        deliver + head + frames.frame(frames.BODY, CHANNEL, b"more of it than was told"),
        deliver + head + frames.frame(frames.BODY, CHANNEL, b"in") + content,
        deliver + head + frames.frame(frames.HEARTBEAT, CHANNEL, b"{}"),
        frames.frame(frames.BODY, CHANNEL + 1, b"x" * (LARGEST + 1)) + one,
    ]


def _headers() -> list[bytes]:
    ours = pack(">HHQ", 60, 0, 2) + to_pamqp(MESSAGE).marshal()
    kinds = hostile.ODD["all kinds"][6:]
    shorter = [hostile.headers(kinds[:length]) for length in range(len(kinds))]
    odd = [*shorter, *hostile.ODD.values(), *(raw for raw, _ in hostile.UNREADABLE.values())]
    cut = [ours[:length] for length in range(len(ours))]
    return [ours, *cut, *(pack(">HHQ", 60, 0, 2) + raw for raw in odd if len(raw) < 2000)]


def _confirms() -> list[bytes]:
    ack, nack = commands.Basic.Ack, commands.Basic.Nack
    returned = [
        commands.Basic.Return(312, "NO_ROUTE", "jobs", "emails.welcome"),
        ContentHeader(0, 2, commands.Basic.Properties(message_id="2")),
        body.ContentBody(b"{}"),
    ]
    streams = [
        _marshal(ack(1), ack(3)),
        _marshal(ack(2, multiple=True), nack(3)),
        _marshal(*returned, ack(3, multiple=True)),
        _marshal(nack(3, multiple=True), ack(9)),
        _marshal(ack(1), commands.Channel.Close(404, "NOT_FOUND", 60, 40)),
    ]
    return [b"\x03" + written(raw) for raw in streams]


SEEDS = {"stream": _streams(), "header": _headers(), "confirms": _confirms()}
