"""The asyncio publisher: returns when the broker has confirmed and kept a message, else raises.

One connection of its own, opened when needed: a memory or disk alarm blocks a connection that publishes, and
must not block the acks of a worker with it. What was sent when a connection died is sent again on the next,
with the same id, until the caller's deadline; then its fate is unknown and says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

import aiormq.exceptions
from aiormq.abc import AbstractChannel
from tenacity import RetryCallState, wait_random_exponential

from brokerjobs.amqp.connection import LOST, explain_channel_error, reply_text, unless_lost
from brokerjobs.amqp.encode import Unwritable
from brokerjobs.amqp.links import Link, Links, Nacked, TryAgain
from brokerjobs.amqp.outlet import Outlet
from brokerjobs.amqp.unconfirmed import Refused, Returned
from brokerjobs.amqp.wire import to_pamqp, why_unwritable
from brokerjobs.errors import (
    BrokerJobsError,
    BrokerUnreachable,
    PublishRefused,
    PublishUnknown,
    Unroutable,
)
from brokerjobs.senders import Senders
from brokerjobs.settings import Settings
from brokerjobs.transport import Publication

T = TypeVar("T")

# Between two tries to connect or to send again.
BACKOFF = wait_random_exponential(multiplier=0.1, max=2.0)

NACK = "RabbitMQ could not keep it (nack): is the queue full?"

OnPublished = Callable[[str, Publication], None]


class _OutOfTime(Exception):
    """No try had an answer by the deadline; says why the last one had none."""


class Publisher:
    """Publishes on one connection that is opened at the first publish and again after each loss.

    Args:
        settings: where to connect.
        role: the connection's name in the management page.
        on_published: told of each publication its outcome: confirmed, refused or unknown.
    """

    def __init__(
        self, settings: Settings, role: str = "publisher", on_published: OnPublished = lambda *_: None
    ) -> None:
        self._settings = settings
        self._on_published = on_published
        self._senders = Senders.of(settings)
        self._links = Links(settings, role)
        self._alone = asyncio.Lock()
        self._in_flight: dict[str, asyncio.Event | None] = {}  # by id, and who waits for its end

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
        try:
            if (signed := self._senders.signed(publication.message)) is not publication.message:
                publication = replace(publication, message=signed)
            await self._in_turn(publication, asyncio.get_running_loop().time() + timeout)
        except PublishUnknown:
            self._on_published("unknown", publication)
            raise
        except BrokerJobsError:
            self._on_published("refused", publication)
            raise
        self._on_published("confirmed", publication)

    async def queue_exists(self, queue: str, *, timeout: float) -> bool:
        """Whether the broker has a queue of this name.

        Raises:
            BrokerUnreachable: when it cannot be asked.
        """
        try:
            return await self._until(
                asyncio.get_running_loop().time() + timeout, lambda: self._look_for(queue)
            )
        except _OutOfTime as error:
            raise BrokerUnreachable(str(error)) from None

    async def close(self) -> None:
        """Close for good; what waits for a confirm ends, its fate unknown."""
        await self._links.close()

    async def _in_turn(self, publication: Publication, deadline: float) -> None:
        """Let one publish of an id pass at a time: the client tells returned messages apart by their ids alone."""
        id = publication.message.id
        if id in self._in_flight:
            await self._until_over(id, deadline)
        self._in_flight[id] = None
        try:
            await self._publish(publication, deadline)
        finally:
            if (over := self._in_flight.pop(id)) is not None:
                over.set()

    async def _until_over(self, id: str, deadline: float) -> None:
        while id in self._in_flight:
            over = self._in_flight[id] = self._in_flight[id] or asyncio.Event()
            try:
                async with asyncio.timeout_at(deadline):
                    await over.wait()
            except TimeoutError:
                raise BrokerUnreachable(f"another send of the id {id} has not ended in time") from None

    async def _publish(self, publication: Publication, deadline: float) -> None:
        written = False

        async def once() -> None:
            nonlocal written
            link = await self._links.get()
            was_written, written = written, True
            try:
                await self._send(link, publication)
            except PublishRefused as error:
                if not isinstance(
                    error, BrokerUnreachable
                ):  # which is no verdict: what was written may be queued
                    written = was_written
                raise

        try:
            await self._until(deadline, once)
        except _OutOfTime as error:
            if not written:
                raise BrokerUnreachable(str(error)) from None
            raise _unknown(publication, error) from None
        except PublishUnknown:
            raise
        except BrokerJobsError as error:
            if not written:
                raise
            raise _unknown(publication, error) from None

    async def _until(self, deadline: float, once: Callable[[], Awaitable[T]]) -> T:
        """Try until there is an answer, or time is up."""
        clock = asyncio.get_running_loop().time
        attempt, why = 1, ""
        while (left := deadline - clock()) > 0:
            if self._links.closed.is_set():
                raise _OutOfTime("the client was closed")
            try:
                async with asyncio.timeout(left):
                    return await once()
            except TimeoutError:
                break
            except (TryAgain, BrokerUnreachable) as error:
                why = str(error)
            except LOST as error:
                why = _lost(error)
            with suppress(TimeoutError):  # the backoff, cut short by close()
                async with asyncio.timeout(min(_backoff(attempt), max(0.0, deadline - clock()))):
                    await self._links.closed.wait()
            attempt += 1
        raise _OutOfTime(why or f"RabbitMQ at {self._settings.address} did not answer in time")

    async def _send(self, link: Link, publication: Publication) -> None:
        """One try on the shared channel; on one of its own when that is closed while others use it too."""
        channel = link.channel
        assert channel is not None
        with self._links.flight(link) as flight:
            try:
                if link.outlet is not None:
                    await self._past_the_client(link.outlet, publication)
                else:
                    await self._frames(channel, publication)
                return
            except aiormq.exceptions.ChannelClosed as error:
                if flight.is_alone:
                    raise self._refusal(error) from None
        # Which of those on the channel did the broker complain of? Each finds out for itself, one at a time.
        async with self._alone:
            link = await self._links.get()
            with self._links.flight(link):
                async with link.connection.scratch_channel(confirms=True) as own:
                    try:
                        await self._frames(own, publication)
                    except aiormq.exceptions.ChannelClosed as error:
                        raise _unknown(publication, self._refusal(error)) from None
                    except PublishRefused as error:  # now; the first try's confirm may have been on its way
                        raise _unknown(publication, error) from None

    async def _frames(self, channel: AbstractChannel, publication: Publication) -> None:
        """Write one message and wait for the broker's verdict."""
        try:
            frames = channel.basic_publish(
                publication.message.body,
                exchange=publication.exchange,
                routing_key=publication.routing_key,
                properties=to_pamqp(publication.message),
                mandatory=True,
            )
            await unless_lost(frames, None, "publish")
        except aiormq.exceptions.PublishError as error:
            raise _unroutable(publication, reply_text(error)) from None
        except aiormq.exceptions.DeliveryError:
            raise Nacked(NACK) from None
        except (aiormq.exceptions.ChannelClosed, *LOST):
            raise
        except Exception as error:
            why = why_unwritable(publication)
            if why is None:
                raise TryAgain(_lost(error)) from error
            raise PublishRefused(f"{publication.message.job} cannot be written as AMQP: {why}") from None

    async def _past_the_client(self, outlet: Outlet, publication: Publication) -> None:
        message = publication.message
        try:
            verdict = outlet.publish(
                publication.exchange, publication.routing_key, message.properties(), message.body
            )
            if outlet.is_crowded:
                await unless_lost(outlet.room(), None, "publish")
            await verdict
        except Unwritable as error:
            raise PublishRefused(f"{message.job} cannot be written as AMQP: {error}") from None
        except Returned as error:
            raise _unroutable(publication, str(error)) from None
        except Refused:
            raise Nacked(NACK) from None

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

    async def _look_for(self, queue: str) -> bool:
        link = await self._links.get()
        with self._links.flight(link):
            try:
                async with link.connection.scratch_channel() as channel:
                    await unless_lost(channel.queue_declare(queue, passive=True), None, f"look for {queue}")
            except aiormq.exceptions.ChannelNotFoundEntity:
                return False
            except aiormq.exceptions.ChannelClosed as error:
                raise self._refusal(error) from None
        return True


def _unroutable(publication: Publication, said: str) -> Unroutable:
    return Unroutable(
        f"no queue is bound to exchange {publication.exchange!r} for {publication.routing_key!r} ({said})"
    )


def _unknown(publication: Publication, why: BaseException) -> PublishUnknown:
    message = publication.message
    return PublishUnknown(
        f"RabbitMQ did not confirm {message.job} {message.id}: {why}; "
        "it may be queued, sending it again with the same id is safe",
        id=message.id,
    )


def _lost(error: BaseException) -> str:
    return f"the connection was lost ({reply_text(error) or type(error).__name__})"


def _backoff(attempt: int) -> float:
    state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]
    state.attempt_number = attempt
    return float(BACKOFF(state))
