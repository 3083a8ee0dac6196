"""The deliveries of one channel, taken from the stream, and their answers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pamqp.frame
from pamqp import body, commands, header

from brokerjobs.amqp.acks import Acks
from brokerjobs.amqp.alike import Alike
from brokerjobs.amqp.delivery import FromFrames
from brokerjobs.amqp.frames import CHANNEL_CLOSE, DELIVER, METHOD, BrokenStream, Content, Splitter, write_ack


class Inlet:
    """Stands between the stream and a consumer.

    Args:
        channel: its number.
        write: sends bytes.
        take: is given each delivery.
        together: whether answers may be given together.
    """

    def __init__(
        self,
        channel: int,
        write: Callable[[bytes], object],
        take: Callable[[FromFrames], object],
        *,
        together: bool,
    ) -> None:
        self.acks = Acks(channel, write, together=together)
        self._content = Content(DELIVER, self._arrived)
        self._take = take
        self._alike = Alike()
        self._last = 0

    def _arrived(self, method: bytes, head: bytes, body: bytes) -> None:
        arrival = FromFrames(method, head, body, self._alike)
        self._last += 1
        if arrival.tag != self._last:  # its answer would be that of another message
            raise BrokenStream(f"RabbitMQ numbered a delivery {arrival.tag} where {self._last} was due")
        self._take(arrival)

    def tap(self, kind: int, data: bytes, at: int, end: int) -> int:
        """Take what belongs to deliveries; see, and leave to the client library, that the channel closes."""
        if taken_to := self._content.take(kind, data, at, end):
            return taken_to
        if kind == METHOD and data[at : at + 4] == CHANNEL_CLOSE:
            self.acks.close()
        return 0


@cache
def agrees_with_client() -> bool:
    """Whether a delivery and its answer are here what they are to the client library that is installed."""
    content = b'{"user_id": 7}'
    arrived: list[FromFrames] = []
    splitter = Splitter()
    splitter.taps[3] = Inlet(3, lambda _: None, arrived.append, together=True).tap
    sent = (
        commands.Basic.Deliver(
            consumer_tag="c", delivery_tag=1, redelivered=True, exchange="jobs", routing_key="a.b"
        ),
        header.ContentHeader(body_size=len(content), properties=commands.Basic.Properties(message_id="7")),
        body.ContentBody(content),
    )
    try:
        passed = splitter.feed(b"".join(pamqp.frame.marshal(frame, 3) for frame in sent))
        answer = pamqp.frame.marshal(commands.Basic.Ack(7, True), 3)
        (came,) = arrived
        read = (came.tag, came.redelivered, came.exchange, came.routing_key, came.body, came.properties)
    except Exception:
        return False
    is_read = read == (1, True, "jobs", "a.b", content, {"message_id": "7"})
    return is_read and passed == b"" and answer == write_ack(3, 7, multiple=True)
