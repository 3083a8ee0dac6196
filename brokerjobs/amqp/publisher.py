"""The asyncio publisher: returns when the broker has confirmed and kept a message, else raises.

One connection of its own, opened when needed: a memory or disk alarm blocks a connection that publishes, and
must not block the acks of a worker with it. What was sent when a connection died is sent again on the next,
with the same id, until the caller's deadline; then its fate is unknown and says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiormq.exceptions
from aiormq.abc import AbstractChannel
from tenacity import RetryCallState, wait_random_exponential

from brokerjobs.amqp.connection import (
    LOST,
    Connection,
    ConnectionLost,
    explain_channel_error,
    reply_text,
    unless_lost,
)
from brokerjobs.amqp.wire import to_pamqp
from brokerjobs.errors import (
    BrokerJobsError,
    BrokerUnreachable,
    PublishRefused,
    PublishUnknown,
    Unroutable,
)
from brokerjobs.settings import Settings
from brokerjobs.transport import Publication

# Between two tries to connect or to send again.
BACKOFF = wait_random_exponential(multiplier=0.1, max=2.0)

OnPublished = Callable[[str], None]


class _TryAgain(Exception):
    """This send was not confirmed, and another may be."""


class Publisher:
    """Publishes on one connection that is opened at the first publish and again after each loss.

    Args:
        settings: where to connect.
        role: the connection's name in the management page.
        on_published: told each outcome: confirmed, refused or unknown.
    """

    def __init__(
        self, settings: Settings, role: str = "publisher", on_published: OnPublished = lambda _: None
    ) -> None:
        self._settings = settings
        self._role = role
        self._on_published = on_published
        self._connection: Connection | None = None
        self._channel: AbstractChannel | None = None
        self._opening = asyncio.Lock()
        self._in_flight: dict[str, asyncio.Event] = {}

    async def publish(self, publication: Publication, *, timeout: float) -> None:
        """Publish one message and wait for its confirm.

        Args:
            publication: what, and where to.
            timeout: seconds for all of it, connecting and sending again included.

        Raises:
            PublishRefused: surely not queued; BrokerUnreachable when there was no connection at all.
            PublishUnknown: it may be queued.
            ConfigurationError: wrong password or virtual host.
        """
        async with self._only_one(publication.message.id):
            try:
                await self._publish_until(publication, asyncio.get_running_loop().time() + timeout)
            except PublishUnknown:
                self._on_published("unknown")
                raise
            except BrokerJobsError:
                self._on_published("refused")
                raise
        self._on_published("confirmed")

    async def queue_exists(self, queue: str, *, timeout: float) -> bool:
        """Whether the broker has a queue of this name.

        Raises:
            BrokerUnreachable: when it cannot be asked.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._open_channel()
                assert self._connection is not None
                async with self._connection.scratch_channel() as channel:
                    await channel.queue_declare(queue, passive=True)
        except aiormq.exceptions.ChannelNotFoundEntity:
            return False
        except (*LOST, TimeoutError) as error:
            raise explain_channel_error(error, self._settings) from None
        return True

    async def close(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            await connection.close()

    async def _publish_until(self, publication: Publication, deadline: float) -> None:
        """Try until it is confirmed, refused, or time is up."""
        attempt, sent, why = 1, False, "no time was given"
        clock = asyncio.get_running_loop().time
        while (left := deadline - clock()) > 0:
            try:
                async with asyncio.timeout(left):
                    channel = await self._open_channel()
                    sent = True
                    await self._send(channel, publication, left)
                return
            except (_TryAgain, BrokerUnreachable) as error:
                why = str(error)
            except TimeoutError:
                why = "no confirm in time"
                self._forget_channel()
            pause = min(_backoff(attempt), max(0.0, deadline - clock()))
            attempt += 1
            await asyncio.sleep(pause)  # noqa: TID251  (backoff between tries, bounded by the deadline)
        if sent:
            raise PublishUnknown(
                f"RabbitMQ did not confirm {publication.message.job} {publication.message.id}: {why}; "
                "it may be queued, sending it again with the same id is safe",
                id=publication.message.id,
            )
        raise BrokerUnreachable(why)

    async def _send(self, channel: AbstractChannel, publication: Publication, timeout: float) -> None:
        alone = not channel.confirmations  # type: ignore[attr-defined]
        try:
            await unless_lost(self._frames(channel, publication), timeout, "publish")
        except aiormq.exceptions.PublishError as error:
            raise Unroutable(
                f"no queue is bound to exchange {publication.exchange!r} for {publication.routing_key!r} "
                f"({reply_text(error)})"
            ) from None
        except aiormq.exceptions.DeliveryError:
            raise _TryAgain("RabbitMQ could not keep it (nack): is the queue full?") from None
        except aiormq.exceptions.ChannelClosed as error:
            self._forget_channel()
            if not alone:  # another publish on this channel may be the one the broker complains of
                await self._send_alone(publication, timeout)
                return
            raise self._refusal(error) from None
        except LOST as error:
            self._forget_channel()
            raise _TryAgain(
                f"the connection was lost ({reply_text(error) or type(error).__name__})"
            ) from None

    async def _send_alone(self, publication: Publication, timeout: float) -> None:
        await self._open_channel()
        if self._connection is None:
            raise _TryAgain("the connection was lost")
        channel = await self._connection.channel(confirms=True)
        try:
            await unless_lost(self._frames(channel, publication), timeout, "publish")
        except aiormq.exceptions.ChannelClosed as error:
            raise self._refusal(error) from None
        except LOST as error:
            raise _TryAgain(f"the connection was lost ({type(error).__name__})") from None
        finally:
            if not channel.is_closed:
                await channel.close()

    async def _frames(self, channel: AbstractChannel, publication: Publication) -> None:
        await channel.basic_publish(
            publication.message.body,
            exchange=publication.exchange,
            routing_key=publication.routing_key,
            properties=to_pamqp(publication.message),
            mandatory=True,
        )

    def _refusal(self, error: aiormq.exceptions.ChannelClosed) -> BaseException:
        if isinstance(error, aiormq.exceptions.ChannelNotFoundEntity):
            return Unroutable(
                f"{reply_text(error)}: the topology is not there yet; "
                "start a worker, or run `brokerjobs topology apply`"
            )
        explained = explain_channel_error(error, self._settings)
        return (
            explained
            if explained is not error
            else PublishRefused(f"RabbitMQ refuses it: {reply_text(error)}")
        )

    async def _open_channel(self) -> AbstractChannel:
        channel = self._channel
        if channel is not None and not channel.is_closed:
            return channel
        async with self._opening:
            if self._channel is None or self._channel.is_closed:
                if self._connection is None or self._connection.is_closed:
                    self._connection = await Connection.open(self._settings, self._role)
                try:
                    self._channel = await self._connection.channel(confirms=True)
                except (ConnectionLost, *LOST) as error:
                    self._connection = None
                    raise _TryAgain(str(error)) from None
            return self._channel

    def _forget_channel(self) -> None:
        """After a doubtful publish the channel's order of confirms is not to be trusted."""
        channel, self._channel = self._channel, None
        if channel is not None and not channel.is_closed and self._connection is not None:
            connection, self._connection = self._connection, None
            task = asyncio.ensure_future(connection.close())
            _closing.add(task)
            task.add_done_callback(_closing.discard)

    @asynccontextmanager
    async def _only_one(self, id: str) -> AsyncIterator[None]:
        """Let one publish of an id pass at a time: the client tells returned messages apart by their ids alone."""
        while (busy := self._in_flight.get(id)) is not None:
            await busy.wait()
        done = self._in_flight[id] = asyncio.Event()
        try:
            yield
        finally:
            del self._in_flight[id]
            done.set()


_closing: set[asyncio.Future[None]] = set()


def _backoff(attempt: int) -> float:
    state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]
    state.attempt_number = attempt
    return float(BACKOFF(state))
