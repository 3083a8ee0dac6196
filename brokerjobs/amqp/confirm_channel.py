"""The blocking publisher's channel, and two ways to publish on it: past the client library, or through it."""

from __future__ import annotations

from functools import cache
from typing import Any

import pika
import pika.exceptions
import pika.frame
import pika.spec

from brokerjobs.amqp import encode
from brokerjobs.amqp.dial import Connection
from brokerjobs.amqp.frames import Tap
from brokerjobs.amqp.unconfirmed import Refused, T, Unconfirmed
from brokerjobs.amqp.wire import why_unwritable
from brokerjobs.logs import log
from brokerjobs.message import Message
from brokerjobs.transport import Publication

ENOUGH = 64 * 1024  # bytes that are worth a write of their own


class ChannelGone(Exception):
    """It was closed, and takes nothing any more."""


class ConfirmChannel:
    """A channel on which RabbitMQ confirms what it gets.

    Args:
        connection, channel: the library's; the channel confirms.
        unconfirmed: where verdicts go.
    """

    def __init__(self, connection: Connection, channel: Any, unconfirmed: Unconfirmed[T]) -> None:
        self._connection = connection
        self._channel = channel
        self._unconfirmed = unconfirmed
        self._number: int = channel.channel_number
        self._unsent: list[bytes] = []
        self._size = 0
        self._envelopes = encode.Envelopes(self._number, connection.frame_max)
        self._taps = _taps_of(connection)
        if self._taps is not None:
            self._taps[self._number] = unconfirmed.tap
        channel.add_on_return_callback(self._returned)

    @property
    def is_open(self) -> bool:
        return bool(self._channel.is_open and self._connection.is_open)

    def publish(self, publication: Publication) -> None:
        """Publish one message, mandatory; it may wait for `send`.

        Raises:
            Unwritable: AMQP has no form for it; nothing was sent.
            ChannelGone: nothing was sent.
        """
        if self._taps is not None:
            self._past_the_library(publication)
        else:
            self._through_the_library(publication)

    def send(self) -> None:
        """Send what was published, in one write."""
        if self._unsent:
            unsent, self._unsent, self._size = self._unsent, [], 0
            self._connection.send(b"".join(unsent))

    def end(self) -> None:
        """It is closed."""
        self._unsent.clear()
        if self._taps is not None:
            self._taps.pop(self._number, None)

    def confirmed(self, frame: Any) -> None:
        """The library's callback for a verdict."""
        method = frame.method
        error = None if isinstance(method, pika.spec.Basic.Ack) else Refused()
        self._unconfirmed.judge(method.delivery_tag, multiple=method.multiple, error=error)

    def _returned(self, _: Any, method: Any, properties: Any, body: bytes) -> None:
        self._unconfirmed.give_back(properties.message_id, f"{method.reply_code} {method.reply_text}")

    def _past_the_library(self, publication: Publication) -> None:
        message = publication.message
        self._unsent += self._envelopes.frames(publication.exchange, publication.routing_key, message)
        self._size += len(message.body)
        if self._size > ENOUGH:
            self.send()

    def _through_the_library(self, publication: Publication) -> None:
        try:
            self._channel.basic_publish(
                publication.exchange,
                publication.routing_key,
                publication.message.body,
                to_pika(publication.message),
                mandatory=True,
            )
        except pika.exceptions.AMQPError as error:
            raise ChannelGone from error
        except Exception as error:  # a property that AMQP cannot carry; the channel stays usable
            raise encode.Unwritable(why_unwritable(publication) or error) from None


def to_pika(message: Message) -> pika.BasicProperties:
    return pika.BasicProperties(**message.properties())  # type: ignore[no-untyped-call]


def _taps_of(connection: Connection) -> dict[int, Tap] | None:
    """Where confirms can be taken from; None where only the client library can be asked for them."""
    if not connection.has_fast_lane:
        return None
    if connection.taps is not None and agrees_with_pika():
        return connection.taps
    log.warning(
        "fast lane is off",
        hint="brokerjobs does not know this release of pika: blocking sends go through it, at more CPU",
    )
    return None


@cache
def agrees_with_pika() -> bool:
    """Whether a message is here what it is to the client library that is installed."""
    try:
        return all(map(_agrees_on, encode.SAMPLES))
    except Exception:
        return False


def _agrees_on(message: Message) -> bool:
    data = b"".join(encode.Envelopes(3, 4096).frames("jobs", "a.b", message))
    decoded: list[Any] = []
    while data:
        length, frame = pika.frame.decode_frame(data)
        decoded.append(frame)
        data = data[length:]
    publish, head, content = decoded
    wanted = message.properties()
    return (
        (publish.method.exchange, publish.method.routing_key, publish.method.mandatory)
        == ("jobs", "a.b", True)
        and {name: getattr(head.properties, name) for name in wanted} == wanted
        and (head.body_size, content.fragment) == (len(message.body), message.body)
    )
