"""The blocking publisher: one owner thread with one pika connection serves all threads of a program.

pika connections may be touched by one thread only, and must be served even while nobody publishes (heartbeats).
So callers hand their messages over and wait for a future with a deadline; the owner writes whatever has come
together, and confirms resolve the futures: fifty threads and `send_many` share one pipeline.
After a fork the child starts over with a thread and a connection of its own.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from typing import Any

import pika
import pika.exceptions
from pika.adapters.select_connection import SelectConnection

from brokerjobs.amqp.connection import connection_name
from brokerjobs.amqp.wire import to_pika, url_for_client
from brokerjobs.errors import (
    AccessRefused,
    BrokerJobsError,
    BrokerUnreachable,
    ConfigurationError,
    PublishRefused,
    PublishUnknown,
    Unroutable,
)
from brokerjobs.settings import Settings
from brokerjobs.transport import Publication

WINDOW = 500  # unconfirmed messages of one send_many
OnPublished = Callable[[str], None]


class Sending:
    """One message, or one question, on its way; `done` resolves when the broker has answered."""

    __slots__ = ("alone", "done", "publication", "queue", "returned", "why", "written")

    def __init__(self, publication: Publication | None = None, queue: str = "") -> None:
        self.publication = publication
        self.queue = queue  # of the question whether it exists
        self.done: Future[bool] = Future()
        self.written = False
        self.returned = ""
        self.alone = False
        self.why = "no connection yet"

    @property
    def id(self) -> str:
        return self.publication.message.id if self.publication else ""

    def resolve(self, answer: bool | BaseException) -> None:
        with suppress(InvalidStateError):  # its caller has given up
            if isinstance(answer, BaseException):
                self.done.set_exception(answer)
            else:
                self.done.set_result(answer)


class BlockingPublisher:
    """Publishes from ordinary threads; safe across threads and after fork.

    Args:
        settings: where to connect.
        on_published: told each outcome: confirmed, refused or unknown.
    """

    def __init__(self, settings: Settings, on_published: OnPublished = lambda _: None) -> None:
        self._settings = settings
        self._on_published = on_published
        self._lock = threading.Lock()
        self._owner: Owner | None = None
        _publishers.add(self)

    def publish(self, publication: Publication, *, timeout: float) -> None:
        """Publish one message and wait for its confirm; raises as the asyncio publisher does."""
        sending = Sending(publication)
        self._hand_over(sending)
        self._wait(sending, time.monotonic() + timeout)

    def publish_many(
        self, publications: Iterable[Publication], *, timeout: float
    ) -> Iterator[tuple[Publication, BrokerJobsError | None]]:
        """Publish a stream of messages, pipelined; gives each with what went wrong, in order.

        Args:
            publications: taken as needed, so a generator of millions is fine.
            timeout: seconds that each message may take once it was handed over.
        """
        window: deque[tuple[Sending, float]] = deque()
        for publication in publications:
            if len(window) >= WINDOW:
                yield self._outcome(*window.popleft())
            sending = Sending(publication)
            self._hand_over(sending)
            window.append((sending, time.monotonic() + timeout))
        while window:
            yield self._outcome(*window.popleft())

    def queue_exists(self, queue: str, *, timeout: float) -> bool:
        """Whether the broker has a queue of this name; raises BrokerUnreachable when it cannot be asked."""
        sending = Sending(queue=queue)
        self._hand_over(sending)
        try:
            return sending.done.result(timeout)
        except TimeoutError:
            raise BrokerUnreachable(sending.why) from None

    def close(self) -> None:
        """End the connection; what waits for a confirm has its fate unknown."""
        with self._lock:
            owner, self._owner = self._owner, None
        if owner is not None:
            owner.stop()

    def forget(self) -> None:
        """In the child of a fork: the thread is not here, and the connection is the parent's."""
        self._lock = threading.Lock()
        self._owner = None

    def _hand_over(self, sending: Sending) -> None:
        with self._lock:
            if self._owner is None or not self._owner.is_alive():
                self._owner = Owner(self._settings)
                self._owner.start()
            self._owner.take(sending)

    def _outcome(self, sending: Sending, deadline: float) -> tuple[Publication, BrokerJobsError | None]:
        assert sending.publication is not None
        try:
            self._wait(sending, deadline)
        except BrokerJobsError as error:
            return sending.publication, error
        return sending.publication, None

    def _wait(self, sending: Sending, deadline: float) -> None:
        try:
            sending.done.result(max(0.0, deadline - time.monotonic()))
        except (TimeoutError, CancelledError):
            if sending.done.cancel() or sending.done.cancelled():
                self._give_up(sending)
            # else it was confirmed or refused in this very moment
            self._wait_resolved(sending)
        except BrokerJobsError as error:
            self._on_published("unknown" if isinstance(error, PublishUnknown) else "refused")
            raise
        else:
            self._on_published("confirmed")

    def _wait_resolved(self, sending: Sending) -> None:
        sending.done.result(0)
        self._on_published("confirmed")

    def _give_up(self, sending: Sending) -> None:
        if not sending.written:
            self._on_published("refused")
            raise BrokerUnreachable(sending.why) from None
        self._on_published("unknown")
        raise PublishUnknown(
            f"RabbitMQ did not confirm {sending.publication and sending.publication.message.job} {sending.id} "
            f"in time: {sending.why}; it may be queued, sending it again with the same id is safe",
            id=sending.id,
        ) from None


class Owner(threading.Thread):
    """The thread that owns the connection."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="brokerjobs-publisher", daemon=True)
        self._settings = settings
        self._waiting: deque[Sending] = deque()
        self._unconfirmed: dict[int, Sending] = {}
        self._by_id: dict[str, Sending] = {}
        self._next_tag = 1
        self._connection: SelectConnection | None = None
        self._channel: Any = None
        self._wake_pending = False
        self._needed = threading.Event()
        self._stopping = False
        self._failures = 0

    # -- called by other threads

    def take(self, sending: Sending) -> None:
        self._waiting.append(sending)
        self._needed.set()
        connection = self._connection
        if connection is not None and not self._wake_pending:
            self._wake_pending = True
            connection.ioloop.add_callback_threadsafe(self._flush)

    def stop(self) -> None:
        self._stopping = True
        self._needed.set()
        connection = self._connection
        if connection is not None:
            connection.ioloop.add_callback_threadsafe(self._close)
        self.join(2.0)

    # -- the thread

    def run(self) -> None:
        while not self._stopping:
            self._needed.wait()
            if not self._stopping:
                self._serve_connection()
                self._lost()
            if not self._waiting:
                self._needed.clear()
                if self._waiting:
                    self._needed.set()
            else:
                self._back_off()

    def _serve_connection(self) -> None:
        """Connect and serve until the connection has ended."""
        parameters = pika.URLParameters(url_for_client(self._settings))
        parameters.connection_attempts = 1
        parameters.socket_timeout = self._settings.connect_timeout
        parameters.stack_timeout = self._settings.connect_timeout
        parameters.blocked_connection_timeout = 300.0
        parameters.client_properties = {
            "connection_name": connection_name("publisher"),
            "product": "brokerjobs",
        }
        connection = SelectConnection(
            parameters,
            on_open_callback=self._opened,
            on_open_error_callback=self._not_opened,
            on_close_callback=self._closed,
        )
        connection.add_on_connection_blocked_callback(self._blocked)
        connection.add_on_connection_unblocked_callback(lambda *_: self._explain("no confirm yet"))
        self._connection = connection
        try:
            connection.ioloop.start()
        finally:
            self._connection, self._channel = None, None
            with suppress(Exception):
                connection.ioloop.close()

    def _opened(self, connection: SelectConnection) -> None:
        self._failures = 0
        self._open_channel(connection)

    def _open_channel(self, connection: SelectConnection) -> None:
        connection.channel(on_open_callback=self._channel_opened)

    def _channel_opened(self, channel: Any) -> None:
        channel.add_on_close_callback(self._channel_closed)
        channel.add_on_return_callback(self._returned)
        self._next_tag = 1
        channel.confirm_delivery(self._confirmed, callback=lambda _: self._channel_ready(channel))

    def _channel_ready(self, channel: Any) -> None:
        self._channel = channel
        self._flush()

    def _flush(self) -> None:
        """Write what waits; a second message of an id in flight waits for the first one's verdict."""
        self._wake_pending = False
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
        return (
            any(sending.alone for sending in self._unconfirmed.values())
            if len(self._unconfirmed) == 1
            else False
        )

    def _write(self, sending: Sending, publication: Publication) -> None:
        try:
            self._channel.basic_publish(
                publication.exchange,
                publication.routing_key,
                publication.message.body,
                to_pika(publication.message),
                mandatory=True,
            )
        except pika.exceptions.AMQPError:  # closed meanwhile: the next connection takes it
            self._waiting.appendleft(sending)
            self._channel = None
            return
        except Exception as error:  # a property that AMQP cannot carry; the channel stays usable
            sending.resolve(PublishRefused(f"{publication.message.job} cannot be written as AMQP: {error}"))
            return
        sending.written, sending.why = True, "no confirm yet"
        self._unconfirmed[self._next_tag] = sending
        self._by_id[sending.id] = sending
        self._next_tag += 1

    def _ask(self, sending: Sending) -> None:
        """Look for a queue on a channel of its own: a missing one closes it."""
        connection = self._connection
        assert connection is not None

        def opened(channel: Any) -> None:
            channel.add_on_close_callback(closed)
            channel.queue_declare(sending.queue, passive=True, callback=lambda _: found(channel))

        def found(channel: Any) -> None:
            sending.resolve(True)
            channel.close()

        def closed(_: Any, reason: Exception) -> None:
            code = getattr(reason, "reply_code", 0)
            if code == 404:
                sending.resolve(False)
            else:
                sending.resolve(_refusal(reason))

        connection.channel(on_open_callback=opened)

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
            sending.resolve(Unroutable(sending.returned))
        elif is_ack:
            sending.resolve(True)
        else:  # a full queue, or a node in trouble: worth another try until its caller gives up
            sending.why = "RabbitMQ could not keep it (nack): is the queue full?"
            connection = self._connection
            if connection is not None:
                connection.ioloop.call_later(0.2, lambda: self._again(sending))

    def _again(self, sending: Sending) -> None:
        self._waiting.append(sending)
        self._flush()

    def _returned(self, _: Any, method: Any, properties: Any, body: bytes) -> None:
        sending = self._by_id.get(properties.message_id)
        if sending is not None:
            sending.returned = f"no queue is bound to exchange {method.exchange!r} for {method.routing_key!r} ({method.reply_text})"

    def _channel_closed(self, _: Any, reason: Exception) -> None:
        """The broker complains of one message: tell its sender, or find out which one it was."""
        self._channel = None
        in_flight = list(self._unconfirmed.values())
        self._unconfirmed.clear()
        self._by_id.clear()
        if len(in_flight) == 1 and isinstance(reason, pika.exceptions.ChannelClosedByBroker):
            in_flight[0].resolve(_refusal(reason))
            in_flight = []
        for sending in in_flight:
            sending.alone = True
        self._waiting.extendleft(reversed(in_flight))
        connection = self._connection
        if connection is not None and connection.is_open:
            self._open_channel(connection)

    def _blocked(self, _: Any, method: Any) -> None:
        reason = getattr(getattr(method, "method", None), "reason", "")
        self._explain(f"RabbitMQ blocks publishers because of an alarm ({reason})")

    def _not_opened(self, connection: SelectConnection, error: BaseException) -> None:
        failure = _connect_failure(error, self._settings)
        self._explain(str(failure))
        if isinstance(failure, ConfigurationError):
            while self._waiting:
                self._waiting.popleft().resolve(failure)
        connection.ioloop.stop()

    def _closed(self, connection: SelectConnection, reason: BaseException) -> None:
        self._explain(f"the connection was lost ({reason})")
        connection.ioloop.stop()

    def _explain(self, why: str) -> None:
        for sending in (*self._unconfirmed.values(), *self._waiting):
            sending.why = why

    # -- endings

    def _lost(self) -> None:
        """What was written without a confirm is sent again, with the same id, on the next connection."""
        in_flight = list(self._unconfirmed.values())
        self._unconfirmed.clear()
        self._by_id.clear()
        waiting = [sending for sending in (*in_flight, *self._waiting) if not sending.done.cancelled()]
        self._waiting.clear()
        self._waiting.extend(waiting)

    def _back_off(self) -> None:
        self._failures += 1
        pause = threading.Event()
        pause.wait(min(2.0, 0.05 * 2**self._failures))

    def _close(self) -> None:
        connection = self._connection
        if connection is not None and not (connection.is_closing or connection.is_closed):
            connection.close()


def _refusal(reason: BaseException) -> BrokerJobsError:
    code, text = getattr(reason, "reply_code", 0), getattr(reason, "reply_text", str(reason))
    text = text.removeprefix("NOT_FOUND - ").removeprefix("ACCESS_REFUSED - ")
    if code == 404:
        return Unroutable(
            f"{text}: the topology is not there yet; start a worker, or run `brokerjobs topology apply`"
        )
    if code == 403:
        return AccessRefused(f"RabbitMQ refuses it: {text}")
    return PublishRefused(f"RabbitMQ refuses it: {text}")


def _connect_failure(error: BaseException, settings: Settings) -> BrokerJobsError:
    where = settings.address
    if isinstance(error, pika.exceptions.ProbableAuthenticationError):
        return ConfigurationError(f"RabbitMQ at {where} refuses the user: wrong name or password")
    if isinstance(error, pika.exceptions.ProbableAccessDeniedError):
        return ConfigurationError(
            f"RabbitMQ at {where} lets the user in but not into this virtual host: "
            "does it exist, and has the user permissions in it?"
        )
    return BrokerUnreachable(f"RabbitMQ at {where} cannot be reached: {_innermost(error)}")


def _innermost(error: BaseException) -> str:
    """pika wraps a failed connect several times; the operating system's words are what helps."""
    seen: list[Any] = [error]
    while seen:
        current = seen.pop()
        if isinstance(current, ConnectionRefusedError):
            return "connection refused; is it running, and on this port?"
        if isinstance(current, OSError) and current.strerror:
            return current.strerror
        inner = getattr(current, "exception", None)
        nested = [*getattr(current, "exceptions", ()), *getattr(current, "args", ())]
        seen += [item for item in (inner, current.__cause__ if isinstance(current, BaseException) else None, *nested)
                 if isinstance(item, BaseException)]  # fmt: skip
    return str(error) or type(error).__name__


_publishers: weakref.WeakSet[BlockingPublisher] = weakref.WeakSet()


def _after_fork() -> None:
    for publisher in list(_publishers):
        publisher.forget()


def _at_exit() -> None:
    for publisher in list(_publishers):
        publisher.close()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
