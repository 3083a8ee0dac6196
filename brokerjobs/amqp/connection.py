"""One plain aio-pika connection: a deadline on each step, and errors that say what to do.

Not `connect_robust`: after a reconnect that meets a silent peer it never recovers, it retries at a fixed
interval, and it re-creates queues nobody asked it to. Whoever needs a connection again opens a new one.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, TypeVar

import aio_pika
import aiormq
import aiormq.exceptions
from aiormq.abc import AbstractChannel

from brokerjobs import tls
from brokerjobs.amqp.alarm import Alarm
from brokerjobs.amqp.frames import LARGEST_UNTIL_TUNED
from brokerjobs.amqp.taps import TappedStreams
from brokerjobs.amqp.wire import url_for_client
from brokerjobs.capabilities import Capabilities
from brokerjobs.errors import AccessRefused, BrokerUnreachable, ConfigurationError
from brokerjobs.process_name import process_name
from brokerjobs.settings import Settings

T = TypeVar("T")

# Seconds: a frozen peer must not hold up an ending. The client itself gives up waiting for one after 2.
CLOSE_TIMEOUT = 3.0
GRANT = "`brokerjobs topology permissions` prints what each kind of program needs"
# What the client raises when the connection or channel is gone.
LOST = (ConnectionError, aiormq.exceptions.AMQPError, aiormq.exceptions.ChannelInvalidStateError, OSError)


# What a connect ends with when the peer closes without a word.
_HANGING_UP = (asyncio.IncompleteReadError, ConnectionResetError, BrokenPipeError, ssl.SSLEOFError)


class ConnectionLost(ConnectionError):
    """The connection or channel ended while it was needed."""


class Connection:
    """A connection that is open until `closed` says otherwise; it is never reopened."""

    def __init__(self, inner: aio_pika.Connection, settings: Settings, streams: TappedStreams) -> None:
        transport = inner.transport
        if transport is None:
            raise ConnectionLost("closed while it was opened")
        self._inner = inner
        self._settings = settings
        self.streams = streams if settings.fast_lane and streams.are_used else None
        self._transport: Any = transport.connection
        self.frame_max: int = self._transport.connection_tune.frame_max or LARGEST_UNTIL_TUNED
        if self.streams is not None:
            self.streams.reader.limit(self._transport.connection_tune.frame_max)
        self.alarm = Alarm()
        if self.streams is not None:
            self.streams.reader.taps[0] = self.alarm.tap
            self._transport.closing.add_done_callback(lambda _: self.alarm.end())
        self.capabilities = Capabilities.of(self._transport.server_properties)
        self.cluster_name = _text(self._transport.server_properties.get("cluster_name"))

    @classmethod
    async def open(cls, settings: Settings, role: str) -> Connection:
        """Connect within the setting's deadline.

        Args:
            settings: where, as whom, how long.
            role: what it is for; seen in the management page as `brokerjobs <role> on <host>`.

        Raises:
            BrokerUnreachable: nobody answers there; worth another try.
            ConfigurationError: wrong password, virtual host or broker; another try will not help.
        """
        properties: Any = {"connection_name": connection_name(role), "product": "brokerjobs"}
        try:
            async with asyncio.timeout(settings.connect_timeout):
                secured = await asyncio.to_thread(tls.context, settings) if settings.uses_tls else None
                inner = aio_pika.Connection(
                    aio_pika.connection.make_url(url_for_client(settings)),
                    ssl_context=secured,
                    client_properties=properties,
                )
                streams = TappedStreams()
                if settings.fast_lane:
                    inner.kwargs["transport_factory"] = streams
                try:
                    await inner.connect()
                except BaseException:
                    await (
                        inner.close()
                    )  # at once, as there is no transport; else it complains when it is collected
                    raise
                return cls(inner, settings, streams)
        except (ConfigurationError, BrokerUnreachable):
            raise
        except (*LOST, TimeoutError, ValueError) as error:
            raise explain(error, settings) from None

    @property
    def is_closed(self) -> bool:
        return bool(self._transport.is_closed)

    async def wait_closed(self) -> Exception | None:
        """Return when the connection has ended; with what ended it, if that was an error."""
        try:
            await asyncio.shield(self._transport.closing)
        except Exception as error:
            return error
        return None

    async def channel(self, *, confirms: bool = False) -> AbstractChannel:
        """A new channel; with confirms, publishes wait for the broker and returned messages raise."""
        try:
            async with deadline(self._settings.connect_timeout, "open a channel"):
                channel = await self._inner.channel(publisher_confirms=confirms, on_return_raises=confirms)
                return await channel.get_underlay_channel()
        except RuntimeError as error:  # the client's word for a connection that is closed by now
            raise ConnectionLost(str(error)) from None

    @asynccontextmanager
    async def scratch_channel(self, *, confirms: bool = False) -> AsyncIterator[AbstractChannel]:
        """A channel for one purpose; an error may close it without harm to others.

        Raises:
            AccessRefused: the user may not do what was asked on it.
        """
        channel = await self.channel(confirms=confirms)
        try:
            yield channel
        except aiormq.exceptions.ChannelAccessRefused as error:
            raise explain_channel_error(error, self._settings) from None
        finally:
            if not channel.is_closed:
                with suppress(*LOST, TimeoutError):
                    async with asyncio.timeout(CLOSE_TIMEOUT):
                        await channel.close()

    async def close(self) -> None:
        """End the connection; a peer that does not answer is left behind after a moment."""
        with suppress(*LOST):
            async with deadline(CLOSE_TIMEOUT, "close the connection"):
                await self._inner.close()


def connection_name(role: str) -> str:
    return f"brokerjobs {role} on {process_name()}"


class deadline:  # noqa: N801  (read as a verb, like asyncio.timeout)
    """Bounds a step: `async with deadline(5, "look for a queue"): …`

    A lost connection or a missed deadline both end as ConnectionLost. The client cancels waiting calls when a
    connection dies; such a CancelledError that nobody asked for is turned into ConnectionLost as well. The other way
    round, it lets a lost connection take the place of a CancelledError that somebody did ask for, whose task would
    then never end: that one is raised again.

    Args:
        seconds: for the step; None leaves that to the caller.
        what: the step, for the error.
    """

    # Not a generator: the last steps of all are taken when the loop has finished its generators.
    __slots__ = ("_cancels", "_seconds", "_timeout", "_what")

    def __init__(self, seconds: float | None, what: str) -> None:
        self._seconds = seconds
        self._what = what
        self._timeout = asyncio.timeout(seconds)
        self._cancels = 0

    async def __aenter__(self) -> None:
        self._cancels = _cancels()
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError as late:
            error = late
        if isinstance(error, TimeoutError):
            raise ConnectionLost(f"no answer within {self._seconds or 0:g} s to: {self._what}") from None
        if isinstance(error, asyncio.CancelledError) and not _cancels():
            raise ConnectionLost(f"the connection ended during: {self._what}") from None
        if isinstance(error, LOST) and _cancels() > self._cancels:
            raise asyncio.CancelledError from None


def _cancels() -> int:
    """How often this task was told to end."""
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


async def unless_lost(call: Awaitable[T], seconds: float | None, what: str) -> T:
    """The call's result; None as seconds leaves the deadline to the caller."""
    async with deadline(seconds, what):
        return await call


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")


def explain(error: BaseException, settings: Settings) -> ConfigurationError | BrokerUnreachable:
    """The error of a failed connect in our words."""
    where, text, user = settings.address, str(error), settings.user
    causes = (error, *_behind(error))
    if distrust := tls.refusal(causes, settings):
        return distrust
    if isinstance(
        error, (aiormq.exceptions.AuthenticationError, aiormq.exceptions.ProbableAuthenticationError)
    ):
        return wrong_login(settings)
    if isinstance(error, aiormq.exceptions.ConnectionNotAllowed | aiormq.exceptions.InvalidFrameError):
        return ConfigurationError(
            f"RabbitMQ at {where} lets user {user!r} in but not into this virtual host: "
            "does it exist, and has the user permissions in it?"
        )
    if isinstance(error, aiormq.exceptions.IncompatibleProtocolError):
        return ConfigurationError(f"what answers at {where} does not speak AMQP 0-9-1 ({text})")
    if any(isinstance(cause, _HANGING_UP) for cause in causes):
        return BrokerUnreachable(f"RabbitMQ at {where} cannot be reached: {tls.hung_up(settings)}")
    return BrokerUnreachable(f"RabbitMQ at {where} cannot be reached: {_os_words(error, settings)}")


def wrong_login(settings: Settings) -> ConfigurationError:
    """RabbitMQ does not tell which it was, and its log does."""
    return ConfigurationError(
        f"RabbitMQ at {settings.address} refuses user {settings.user!r}: wrong name or password"
        + ("; user guest may connect from the broker's own machine only" if settings.user == "guest" else "")
    )


def _behind(error: BaseException) -> list[BaseException]:
    """The errors that led to this one; the clients make some that lead to themselves."""
    found: list[BaseException] = []
    while (cause := error.__cause__ or error.__context__) is not None and cause not in found:
        found.append(cause)
        error = cause
    return found


def _os_words(error: BaseException, settings: Settings) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {settings.connect_timeout:g} s"
    match error.args:
        case (errno.ECONNREFUSED, *_):
            return "connection refused; is it running, and on this port?"
        case (int(), str(words)):
            return words
    return str(error) or type(error).__name__


def explain_channel_error(error: BaseException, settings: Settings) -> BaseException:
    """403 in our words; anything else as it is."""
    if isinstance(error, aiormq.exceptions.ChannelAccessRefused):
        return AccessRefused(f"RabbitMQ refuses user {settings.user!r}: {reply_text(error)}; {GRANT}")
    return error


def reply_text(error: BaseException) -> str:
    """What the broker said, without its AMQP numbers."""
    parts = [str(part) for part in error.args if isinstance(part, str)]
    return (parts[0] if parts else str(error)).removeprefix("ACCESS_REFUSED - ").removeprefix("NOT_FOUND - ")
