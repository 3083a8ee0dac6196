"""The thread that owns the blocking publisher's connection.

pika connections may be touched by one thread at a time, and must be served even while nobody publishes (heartbeats).
This thread has one event loop for its whole life; others append to its queue, and wake it or drive the loop
themselves (`driving.py`). Everything else here happens on that loop.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pika
import pika.exceptions
from pika.adapters.select_connection import IOLoop

from brokerjobs.amqp.confirm_channel import ChannelGone, ConfirmChannel
from brokerjobs.amqp.dial import Connection, Parameters, connect_failure, refusal
from brokerjobs.amqp.driving import Driving
from brokerjobs.amqp.encode import Unwritable
from brokerjobs.amqp.sending import Sending
from brokerjobs.amqp.unconfirmed import Returned, Unconfirmed
from brokerjobs.errors import BrokerJobsError, ConfigurationError, PublishRefused, Unroutable
from brokerjobs.settings import Settings
from brokerjobs.transport import Publication

CLOSE_TIMEOUT = 1.5  # seconds: a frozen peer must not hold up an ending
NACK_PAUSE = 0.2  # seconds until what the broker could not keep is sent again
LONGEST_BACKOFF = 2.0  # seconds between two tries to connect
LINGER = 0.002  # seconds after which the messages of a stream leave at the latest


class Owner(threading.Thread):
    """Connects when there is something to send, keeps the connection, and writes what the callers hand over.

    Args:
        settings: where to connect.
        broken: told when a caller was interrupted while it drove the loop, so that this thread has ended; and what
            has no answer yet.
    """

    def __init__(self, settings: Settings, broken: Callable[[Owner, list[Sending]], None]) -> None:
        super().__init__(name="brokerjobs-publisher", daemon=True)
        self._settings = settings
        self._broken = broken
        self._loop = IOLoop()
        self._driving = Driving(self._loop, self._is_ready, self._is_calm)
        self._handing_over = threading.RLock()
        self._has_ended = False
        self._wake_pending = False  # the thread will look at what waits at once
        self._looks_soon = False  # or so after a moment
        self._lingers = False
        # All there are. Whoever is interrupted may have lost hold of one that it takes from one of the others.
        self._unanswered: dict[Sending, None] = {}
        self._waiting: deque[Sending] = deque()
        self._held: deque[Sending] = deque()  # until another has its verdict
        self._unconfirmed = Unconfirmed(self._verdict)
        self._asked: set[Sending] = set()
        self._nacked: set[Sending] = set()
        self._parameters = Parameters(settings)
        self._connecting: Any = None
        self._connection: Connection | None = None
        self._channel: ConfirmChannel | None = None
        self._pausing = False
        self._failures = 0
        self._ending = False
        self._why = f"RabbitMQ at {settings.address} did not answer in time"

    # -- called by other threads

    @property
    def is_within(self) -> bool:
        """Whether this thread is about a send already, and in the middle of it runs the handler of a signal."""
        return self._driving.is_by_this_caller

    def take(self, sending: Sending, *, of_stream: bool = False, until: float | None = None) -> bool:
        """Send this; False when the thread has ended and takes nothing any more.

        Args:
            sending: what.
            of_stream: more follows at once, so that it may wait for those a moment: to wake a thread for each costs
                more than the messages.
            until: the caller waits for the answer now, at most until then, and may meanwhile do the thread's work.
        """
        with self._handing_over:
            if self._has_ended or self._driving.is_broken:
                return False
            sending.why = self._why
            alone = until is not None and self._is_calm()
            self._waiting.append(sending)
            sending.join(self._unanswered)
            self._lingers |= of_stream
        if until is None or not (alone and self._driving.drive(sending, until, self._flush)):
            self._see_to_it(soon=of_stream)
        return True

    def hurry(self) -> None:
        """Let nothing wait any longer: who hands it over now waits for it."""
        if self._waiting:
            self._see_to_it(soon=False)

    def stop(self) -> None:
        """End the connection and the thread; what has no answer by then gets none."""
        self._ending = True
        self._loop.add_callback_threadsafe(self._end)
        self._driving.call()
        if not self.is_within:  # what it interrupts ends the connection, as soon as it goes on
            self.join(2 * CLOSE_TIMEOUT)

    # -- the thread

    def run(self) -> None:
        try:
            self._driving.serve()
        finally:
            with self._handing_over:
                self._has_ended = True
            if self._driving.is_broken:
                self._break_off()
            else:
                for sending in list(self._unanswered):
                    sending.why = "the client was closed"
                    sending.resolve(sending.give_up())
            self._loop.close()

    def _break_off(self) -> None:
        """Leave the connection, whatever state it is in; the next one takes over."""
        if self._connection is not None:
            self._connection.drop()
        unanswered = [
            sending for sending in list(self._unanswered) if not (sending.is_answered or sending.is_given_up)
        ]
        for sending in unanswered:
            sending.doubt()
        self._broken(self, unanswered)

    def _is_ready(self) -> bool:
        return self._channel is not None and self._channel.is_open and not self._ending

    def _is_calm(self) -> bool:
        return not self._unanswered and self._is_ready()

    def _see_to_it(self, *, soon: bool) -> None:
        """Have somebody write what waits; or soon, where that is as good."""
        with self._handing_over:
            if not (self._wake_pending or (soon and self._looks_soon) or self._has_ended):
                self._wake()
            self._driving.call()

    def _wake(self) -> None:
        self._wake_pending = True
        try:
            self._loop.add_callback_threadsafe(self._flush)
        except BaseException:  # of a signal's handler
            self._wake_pending = False
            raise

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
            self._driving.stop()
            return
        self._explain(str(failure))
        if isinstance(failure, ConfigurationError):
            for waiting in self._held, self._waiting:
                while waiting:
                    waiting.popleft().refuse(failure)
        self._pause()

    def _closed(self, _: Connection, reason: BaseException) -> None:
        """What was written without a confirm is sent again, with the same id, on the next connection."""
        self._connection, self._channel = None, None
        again = [*self._unconfirmed.clear(), *self._asked, *self._nacked]
        for sending in again:
            sending.doubt()
        self._asked.clear()
        self._nacked.clear()
        self._held.extendleft(reversed(again))
        self._explain(f"the connection was lost ({reason})")
        if self._ending:
            self._driving.stop()
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
            self._driving.stop()
        self._loop.call_later(CLOSE_TIMEOUT, self._end_at_once)

    def _end_at_once(self) -> None:
        if self._connection is not None:
            self._connection.abort()
        else:
            self._driving.stop()

    def _open_channel(self) -> None:
        assert self._connection is not None
        connection = self._connection
        self._unconfirmed = Unconfirmed(self._verdict)

        def opened(channel: Any) -> None:
            channel.add_on_close_callback(self._channel_closed)
            confirming = ConfirmChannel(connection, channel, self._unconfirmed)
            channel.confirm_delivery(confirming.confirmed, callback=lambda _: ready(confirming))

        def ready(channel: ConfirmChannel) -> None:
            self._channel = channel
            self._flush()

        connection.channel(on_open_callback=opened)

    # -- writing

    def _flush(self) -> None:
        """Write what waits; a second message of an id in flight waits for the first one's verdict."""
        self._wake_pending = False
        if self._channel is None or not self._channel.is_open:
            for waiting in self._held, self._waiting:
                while waiting and waiting[0].is_given_up:
                    waiting.popleft()
            if self._held or self._waiting:
                self._connect()
            return
        held, self._held = self._held, deque()
        for waiting in held, self._waiting:
            while waiting:
                self._take_up(waiting.popleft(), self._channel)
        self._channel.send()
        if self._lingers:
            self._lingers, self._looks_soon = False, True
            self._loop.call_later(LINGER, self._look_again)

    def _look_again(self) -> None:
        self._looks_soon = False
        self._flush()

    def _take_up(self, sending: Sending, channel: ConfirmChannel) -> None:
        publication = sending.publication
        if sending.is_given_up:
            return
        if publication is None:
            self._ask(sending)
        elif self._is_in_the_way_of(sending):
            self._held.append(sending)
        else:
            self._write(sending, publication, channel)

    def _is_in_the_way_of(self, sending: Sending) -> bool:
        """Whether something in flight must have its verdict first."""
        return (
            self._unconfirmed.holds(sending.id)
            or (sending.alone and len(self._unconfirmed) > 0)
            or (len(self._unconfirmed) == 1 and self._unconfirmed.all()[0].alone)
        )

    def _write(self, sending: Sending, publication: Publication, channel: ConfirmChannel) -> None:
        # First the mark, then the look: a caller that gives up after the look reads the mark, and says "unknown".
        written, sending.written = sending.written, True
        if sending.is_given_up:
            return
        try:
            channel.publish(publication)
        except ChannelGone:  # the next channel takes it
            sending.written = written
            self._held.append(sending)
        except Unwritable as error:
            sending.resolve(PublishRefused(f"{publication.message.job} cannot be written as AMQP: {error}"))
        else:
            self._unconfirmed.add(sending, sending.id)

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

    def _verdict(self, sending: Sending, error: Exception | None) -> None:
        if error is None:
            sending.resolve(True)
        elif isinstance(error, Returned):
            sending.refuse(Unroutable(_no_queue(sending.publication, error)))
        else:  # a full queue, or a node in trouble: worth another try until its caller gives up
            sending.why = "RabbitMQ could not keep it (nack): is the queue full?"
            self._nacked.add(sending)
            self._loop.call_later(NACK_PAUSE, lambda: self._again(sending))
        if self._held and not self._wake_pending:
            self._wake()

    def _again(self, sending: Sending) -> None:
        if sending in self._nacked:
            self._nacked.discard(sending)
            self._waiting.append(sending)
            self._flush()

    def _channel_closed(self, channel: Any, reason: Exception) -> None:
        """The broker complains of one message: tell its sender, or find out which one it was."""
        if not isinstance(reason, pika.exceptions.ChannelClosedByBroker):
            return  # with its connection
        if self._channel is not None:
            self._channel.end()
        self._channel = None
        in_flight = self._unconfirmed.clear()
        if len(in_flight) == 1:
            in_flight.pop().refuse(refusal(reason))
        for sending in in_flight:  # those before the bad one may be queued, their confirms on their way
            sending.alone = True
            sending.doubt()
        self._held.extendleft(reversed(in_flight))
        if self._connection is not None and self._connection.is_open:
            self._open_channel()

    def _blocked(self, _: Any, method: Any) -> None:
        reason = getattr(getattr(method, "method", None), "reason", "")
        self._explain(f"RabbitMQ blocks publishers because of an alarm ({reason})")

    def _explain(self, why: str) -> None:
        """Say why there is no answer yet, to those who will ask."""
        self._why = why
        for sending in list(self._unanswered):
            sending.why = why


def _no_queue(publication: Publication | None, said: Returned) -> str:
    assert publication is not None
    return f"no queue is bound to exchange {publication.exchange!r} for {publication.routing_key!r} ({said})"
