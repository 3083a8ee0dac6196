"""The thread that owns the blocking publisher's connection.

pika connections may be touched by one thread only, and must be served even while nobody publishes (heartbeats).
This thread runs one event loop for its whole life; others only append to its queue and wake it. Everything else
here happens on that loop.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import Any

import pika
import pika.exceptions
from pika.adapters.select_connection import IOLoop

from brokerjobs.amqp.dial import Connection, Parameters, connect_failure, refusal
from brokerjobs.amqp.sending import Sending
from brokerjobs.amqp.wire import to_pika, why_unwritable
from brokerjobs.errors import BrokerJobsError, ConfigurationError, PublishRefused, Unroutable
from brokerjobs.settings import Settings
from brokerjobs.transport import Publication

CLOSE_TIMEOUT = 1.5  # seconds: a frozen peer must not hold up an ending
NACK_PAUSE = 0.2  # seconds until what the broker could not keep is sent again
LONGEST_BACKOFF = 2.0  # seconds between two tries to connect


class Owner(threading.Thread):
    """Connects when there is something to send, keeps the connection, and writes what the callers hand over."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="brokerjobs-publisher", daemon=True)
        self._settings = settings
        self._loop = IOLoop()
        self._handing_over = threading.Lock()
        self._has_ended = False
        self._wake_pending = False
        self._waiting: deque[Sending] = deque()
        self._unconfirmed: dict[int, Sending] = {}
        self._by_id: dict[str, Sending] = {}
        self._asked: set[Sending] = set()
        self._nacked: set[Sending] = set()
        self._next_tag = 1
        self._parameters = Parameters(settings)
        self._connecting: Any = None
        self._connection: Connection | None = None
        self._channel: Any = None
        self._pausing = False
        self._failures = 0
        self._ending = False
        self._why = f"RabbitMQ at {settings.address} did not answer in time"

    # -- called by other threads

    def take(self, sending: Sending) -> bool:
        """Send this; False when the thread has ended and takes nothing any more."""
        with self._handing_over:
            if self._has_ended:
                return False
            sending.why = self._why
            self._waiting.append(sending)
            if not self._wake_pending:
                self._wake_pending = True
                self._loop.add_callback_threadsafe(self._flush)
        return True

    def stop(self) -> None:
        """End the connection and the thread; what has no answer by then gets none."""
        self._loop.add_callback_threadsafe(self._end)
        self.join(2 * CLOSE_TIMEOUT)

    # -- the thread

    def run(self) -> None:
        try:
            self._loop.start()
        finally:
            with self._handing_over:
                self._has_ended = True
            for sending in self._all():
                sending.why = "the client was closed"
                sending.resolve(sending.give_up())
            self._loop.close()

    def _all(self) -> Iterable[Sending]:
        return [*self._unconfirmed.values(), *self._asked, *self._nacked, *self._waiting]

    # -- connecting

    def _connect(self) -> None:
        """Unless that is done, in progress, or pausing between two tries."""
        if self._connection or self._connecting or self._pausing or self._ending:
            return
        try:
            self._parameters = Parameters(self._settings)
        except ConfigurationError as unusable:
            self._not_connected(unusable)
            return
        self._connecting = Connection.create_connection([self._parameters], self._connected, self._loop)

    def _connected(self, result: Any) -> None:
        self._connecting = None
        if not isinstance(result, Connection):
            self._not_connected(connect_failure(result, self._settings))
            return
        self._connection, self._failures = result, 0
        self._explain("no confirm yet")
        result.add_on_close_callback(self._closed)
        result.add_on_connection_blocked_callback(self._blocked)
        result.add_on_connection_unblocked_callback(lambda *_: self._explain("no confirm yet"))
        if self._ending:
            result.close()
        else:
            self._open_channel()

    def _not_connected(self, failure: BrokerJobsError) -> None:
        if self._ending:
            self._loop.stop()
            return
        self._explain(str(failure))
        if isinstance(failure, ConfigurationError):
            while self._waiting:
                self._waiting.popleft().refuse(failure)
        self._pause()

    def _closed(self, _: Connection, reason: BaseException) -> None:
        """What was written without a confirm is sent again, with the same id, on the next connection."""
        self._connection, self._channel = None, None
        again = [*self._unconfirmed.values(), *self._asked, *self._nacked]
        for sending in again:
            sending.doubt()
        for gone in self._unconfirmed, self._by_id, self._asked, self._nacked:
            gone.clear()
        self._waiting.extendleft(reversed(again))
        self._explain(f"the connection was lost ({reason})")
        if self._ending:
            self._loop.stop()
        else:
            self._pause()

    def _pause(self) -> None:
        self._failures += 1
        self._pausing = True
        self._loop.call_later(min(LONGEST_BACKOFF, 0.05 * 2**self._failures), self._resume)

    def _resume(self) -> None:
        self._pausing = False
        self._flush()

    def _end(self) -> None:
        self._ending = True
        if self._connection is not None:
            if self._connection.is_open:
                self._connection.close()
        elif self._connecting is not None:
            # Not by abort() once there is a connection: that fails during the handshake (pika 1.4).
            if (attempt := self._parameters.connection) is None:
                self._connecting.abort()
            elif not (attempt.is_closing or attempt.is_closed):
                attempt.close()
        else:
            self._loop.stop()
        self._loop.call_later(CLOSE_TIMEOUT, self._end_at_once)

    def _end_at_once(self) -> None:
        if self._connection is not None:
            self._connection.abort()
        else:
            self._loop.stop()

    def _open_channel(self) -> None:
        def opened(channel: Any) -> None:
            channel.add_on_close_callback(self._channel_closed)
            channel.add_on_return_callback(self._returned)
            channel.confirm_delivery(self._confirmed, callback=lambda _: ready(channel))

        def ready(channel: Any) -> None:
            self._channel, self._next_tag = channel, 1
            self._flush()

        assert self._connection is not None
        self._connection.channel(on_open_callback=opened)

    # -- writing

    def _flush(self) -> None:
        """Write what waits; a second message of an id in flight waits for the first one's verdict."""
        self._wake_pending = False
        if self._channel is None or not self._channel.is_open:
            while self._waiting and self._waiting[0].done.cancelled():
                self._waiting.popleft()
            if self._waiting:
                self._connect()
            return
        kept: list[Sending] = []
        while self._waiting and self._channel is not None:
            sending = self._waiting.popleft()
            if sending.done.cancelled():
                continue
            if sending.publication is None:
                self._ask(sending)
            elif sending.id in self._by_id or (sending.alone and self._unconfirmed) or self._holds_alone():
                kept.append(sending)
            else:
                self._write(sending, sending.publication)
        self._waiting.extendleft(reversed(kept))

    def _holds_alone(self) -> bool:
        return len(self._unconfirmed) == 1 and any(sending.alone for sending in self._unconfirmed.values())

    def _write(self, sending: Sending, publication: Publication) -> None:
        # First the mark, then the look: a caller that gives up after the look reads the mark, and says "unknown".
        written, sending.written = sending.written, True
        if sending.done.cancelled():
            return
        try:
            self._channel.basic_publish(
                publication.exchange,
                publication.routing_key,
                publication.message.body,
                to_pika(publication.message),
                mandatory=True,
            )
        except pika.exceptions.AMQPError:  # closed meanwhile: the next channel takes it
            sending.written = written
            self._waiting.appendleft(sending)
            self._channel = None
            return
        except Exception as error:  # a property that AMQP cannot carry; the channel stays usable
            why = why_unwritable(publication) or error
            sending.resolve(PublishRefused(f"{publication.message.job} cannot be written as AMQP: {why}"))
            return
        sending.returned = ""
        self._unconfirmed[self._next_tag] = sending
        self._by_id[sending.id] = sending
        self._next_tag += 1

    def _ask(self, sending: Sending) -> None:
        """Look for a queue on a channel of its own: a missing one closes it."""

        def opened(channel: Any) -> None:
            channel.add_on_close_callback(closed)
            channel.queue_declare(sending.queue, passive=True, callback=lambda _: found(channel))

        def found(channel: Any) -> None:
            self._asked.discard(sending)
            sending.resolve(True)
            channel.close()

        def closed(_: Any, reason: Exception) -> None:
            if sending in self._asked and isinstance(reason, pika.exceptions.ChannelClosedByBroker):
                self._asked.discard(sending)
                sending.resolve(False if reason.reply_code == 404 else refusal(reason))

        assert self._connection is not None
        self._asked.add(sending)
        self._connection.channel(on_open_callback=opened)

    # -- what the broker says

    def _confirmed(self, frame: Any) -> None:
        method = frame.method
        is_ack = isinstance(method, pika.spec.Basic.Ack)
        tags = (
            [tag for tag in self._unconfirmed if tag <= method.delivery_tag]
            if method.multiple
            else [method.delivery_tag]
        )
        for tag in tags:
            sending = self._unconfirmed.pop(tag, None)
            if sending is not None:
                self._by_id.pop(sending.id, None)
                self._verdict(sending, is_ack)
        if self._waiting:
            self._flush()

    def _verdict(self, sending: Sending, is_ack: bool) -> None:
        if sending.returned:
            sending.refuse(Unroutable(sending.returned))
        elif is_ack:
            sending.resolve(True)
        else:  # a full queue, or a node in trouble: worth another try until its caller gives up
            sending.why = "RabbitMQ could not keep it (nack): is the queue full?"
            self._nacked.add(sending)
            self._loop.call_later(NACK_PAUSE, lambda: self._again(sending))

    def _again(self, sending: Sending) -> None:
        if sending in self._nacked:
            self._nacked.discard(sending)
            self._waiting.append(sending)
            self._flush()

    def _returned(self, _: Any, method: Any, properties: Any, body: bytes) -> None:
        sending = self._by_id.get(properties.message_id)
        if sending is not None:
            sending.returned = (
                f"no queue is bound to exchange {method.exchange!r} for {method.routing_key!r} "
                f"({method.reply_text})"
            )

    def _channel_closed(self, channel: Any, reason: Exception) -> None:
        """The broker complains of one message: tell its sender, or find out which one it was."""
        if not isinstance(reason, pika.exceptions.ChannelClosedByBroker):
            return  # with its connection
        self._channel = None
        in_flight = list(self._unconfirmed.values())
        self._unconfirmed.clear()
        self._by_id.clear()
        if len(in_flight) == 1:
            in_flight.pop().refuse(refusal(reason))
        for sending in in_flight:  # those before the bad one may be queued, their confirms on their way
            sending.alone = True
            sending.doubt()
        self._waiting.extendleft(reversed(in_flight))
        if self._connection is not None and self._connection.is_open:
            self._open_channel()

    def _blocked(self, _: Any, method: Any) -> None:
        reason = getattr(getattr(method, "method", None), "reason", "")
        self._explain(f"RabbitMQ blocks publishers because of an alarm ({reason})")

    def _explain(self, why: str) -> None:
        """Say why there is no answer yet, to those who will ask."""
        self._why = why
        for sending in self._all():
            sending.why = why
