"""Connecting with pika: the parameters, a connection that can always be ended, and what failed, in our words."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any

import pika
import pika.exceptions
from pika.adapters.select_connection import SelectConnection

from brokerjobs import tls
from brokerjobs.amqp.connection import GRANT, connection_name, wrong_login
from brokerjobs.amqp.frames import Splitter, Tap
from brokerjobs.amqp.wire import url_for_client
from brokerjobs.errors import (
    AccessRefused,
    BrokerJobsError,
    BrokerUnreachable,
    ConfigurationError,
    PublishRefused,
    Unroutable,
)
from brokerjobs.settings import Settings

# What a connect ends with when the peer closes without a word.
_HANGING_UP = (
    pika.exceptions.StreamLostError,
    pika.exceptions.IncompatibleProtocolError,
    ConnectionResetError,
    BrokenPipeError,
    ssl.SSLEOFError,
)


class Connection(SelectConnection):
    """The client's connection; it can be ended without the peer's help, whatever it is doing.

    In the fast lane, frames of channels that are tapped pass by the client, and what is sent leaves at once.
    """

    def __init__(self, parameters: Parameters, **options: Any) -> None:
        self.has_fast_lane = parameters.has_fast_lane
        # The client never agrees to larger frames than the splitter allows.
        self._splitter = Splitter()
        self._is_split = False
        super().__init__(parameters, **options)
        parameters.connection = self

    @property
    def taps(self) -> dict[int, Tap] | None:
        """By the numbers of their channels; None where all frames go to the client."""
        return self._splitter.taps if self._is_split else None

    @property
    def frame_max(self) -> int:
        """Bytes of a frame, as agreed on."""
        return int(self.params.frame_max)

    def send(self, data: bytes) -> None:
        """Send these bytes, now as far as the socket takes them; while the connection closes they reach nobody."""
        if self._transport is None:
            return
        self.bytes_sent += len(data)
        self._adapter_emit_data(data)
        # The client itself would ask first whether the socket is writable.
        if (write_now := getattr(self._transport, "_on_socket_writable", None)) is not None:
            write_now()

    def abort(self) -> None:
        self._adapter_disconnect_stream()

    def drop(self) -> None:
        """End it without a word to anybody; of no use to the client any more."""
        if (stream := getattr(self._transport, "_sock", None)) is not None:
            stream.close()

    def _proto_data_received(self, data: bytes) -> None:
        if self.has_fast_lane:
            passed = self._splitter.feed(data)
            self._is_split = True
            self.bytes_received += len(data) - len(passed)  # by which the client knows that the peer is alive
            data = passed
        if data:
            super()._proto_data_received(data)


class Parameters(pika.URLParameters):
    """Where to connect, and with which timeouts; knows the connection that is being made with them.

    Raises:
        ConfigurationError: for files of TLS that cannot be used.
    """

    connection: Connection | None = None
    has_fast_lane: bool

    def __init__(self, settings: Settings) -> None:
        super().__init__(url_for_client(settings))
        if settings.uses_tls:
            self.ssl_options = pika.SSLOptions(tls.context(settings), self.host)
        self.has_fast_lane = settings.fast_lane
        self.connection_attempts = 1
        self.socket_timeout = settings.connect_timeout
        self.stack_timeout = settings.connect_timeout
        self.blocked_connection_timeout = 300.0
        self.client_properties = {"connection_name": connection_name("publisher"), "product": "brokerjobs"}


def connect_failure(error: Any, settings: Settings) -> BrokerJobsError:
    """Why no connection came about."""
    where, causes = settings.address, list(_causes(error))
    if distrust := tls.refusal(causes, settings):
        return distrust
    if any(isinstance(cause, pika.exceptions.ProbableAuthenticationError) for cause in causes):
        return wrong_login(settings)
    if any(isinstance(cause, pika.exceptions.ProbableAccessDeniedError) for cause in causes):
        return ConfigurationError(
            f"RabbitMQ at {where} lets the user in but not into this virtual host: "
            "does it exist, and has the user permissions in it?"
        )
    if any(isinstance(cause, _HANGING_UP) for cause in causes):
        return BrokerUnreachable(f"RabbitMQ at {where} cannot be reached: {tls.hung_up(settings)}")
    return BrokerUnreachable(f"RabbitMQ at {where} cannot be reached: {_words(causes)}")


def _causes(error: Any) -> Iterable[BaseException]:
    """The error and all that it wraps: a failed connect comes wrapped several times, or as a mere class."""
    if not isinstance(error, BaseException):
        return
    yield error
    inner = (
        *getattr(error, "exceptions", ()),
        getattr(error, "exception", None),
        error.__cause__,
        *error.args,
    )
    for cause in inner:
        if isinstance(cause, BaseException):
            yield from _causes(cause)


def _words(causes: list[BaseException]) -> str:
    """The operating system's words are what helps."""
    for cause in causes:
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused; is it running, and on this port?"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    return next((str(cause) for cause in reversed(causes) if str(cause)), "no connection came about")


def refusal(reason: BaseException) -> BrokerJobsError:
    """Why the broker closed a channel."""
    code, text = getattr(reason, "reply_code", 0), getattr(reason, "reply_text", str(reason))
    text = text.removeprefix("NOT_FOUND - ").removeprefix("ACCESS_REFUSED - ")
    if code == 404:
        return Unroutable(
            f"{text}: the topology is not there yet; start a worker, or run `brokerjobs topology apply`"
        )
    if code == 403:
        return AccessRefused(f"RabbitMQ refuses it: {text}; {GRANT}")
    return PublishRefused(f"RabbitMQ refuses it: {text}")
