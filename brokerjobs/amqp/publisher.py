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

from brokerjobs.amqp.answers import NACK, lost, meaning, refusal, unknown, unroutable
from brokerjobs.amqp.connection import LOST, reply_text, unless_lost
from brokerjobs.amqp.encode import Unwritable
from brokerjobs.amqp.links import Flight, Link, Links, Nacked, TryAgain
from brokerjobs.amqp.outlet import Outlet, Tell
from brokerjobs.amqp.unconfirmed import Refused, Returned
from brokerjobs.amqp.wire import to_pamqp, why_unwritable
from brokerjobs.connection_record import ConnectionRecord
from brokerjobs.errors import (
    BrokerJobsError,
    BrokerUnreachable,
    PublishRefused,
    PublishUnknown,
)
from brokerjobs.senders import Senders
from brokerjobs.settings import Settings
from brokerjobs.transport import Publication

T = TypeVar("T")

# Between two tries to connect or to send again.
BACKOFF = wait_random_exponential(multiplier=0.1, max=2.0)

OnPublished = Callable[[str, Publication, float | None], None]


class _OutOfTime(Exception):
    """No try had an answer by the deadline; says why the last one had none."""


class Publisher:
    """Publishes on one connection that is opened at the first publish and again after each loss.

    Args:
        settings: where to connect.
        role: the connection's name in the management page.
        on_published: told of each publication its outcome (confirmed, refused or unknown), and after how many seconds,
            unless it is one of many.
        record: told of its connections.
    """

    def __init__(
        self,
        settings: Settings,
        role: str = "publisher",
        on_published: OnPublished | None = None,
        record: ConnectionRecord | None = None,
    ) -> None:
        self._settings = settings
        self._on_published = on_published
        self._senders = Senders.of(settings)
        self._links = Links(settings, role, record)
        self._alone = asyncio.Lock()
        self._in_flight: dict[str, asyncio.Event | None] = {}  # by id, and who waits for its end

    async def publish(self, publication: Publication, *, timeout: float, of_stream: bool = False) -> None:
        """Publish one message and wait for its confirm.

        Args:
            publication: what, and where to.
            timeout: seconds for all of it, connecting and sending again included.
            of_stream: it is one of many, whose time tells nothing.

        Raises:
            PublishRefused: surely not queued; BrokerUnreachable when there was no connection at all.
            PublishUnknown: it may be queued.
            ConfigurationError: wrong password or virtual host.
        """
        publication = self.signed(publication)
        began = asyncio.get_running_loop().time()
        in_turn = self._in_turn(publication, began + timeout)
        await self._counted(publication, in_turn, None if of_stream else began)

    # -- for a stream of messages

    def signed(self, publication: Publication) -> Publication:
        """As we publish it."""
        message = self._senders.signed(publication.message)
        return publication if message is publication.message else replace(publication, message=message)

    @property
    def is_crowded(self) -> bool:
        """Whether much waits to be sent."""
        link = self._links.current
        return link is not None and link.outlet is not None and link.outlet.is_crowded

    def begin(self, publication: Publication, tell: Tell) -> Flight | None:
        """Write a message at once; None where that cannot be, and only `publish` knows why.

        Args:
            publication: as `signed` gave it.
            tell: told once of its verdict, after which `confirmed` or `failed` must be called, unless `overdue` or
                `abandoned` was before.
        """
        link, message = self._links.current, publication.message
        outlet = None if link is None else link.outlet
        if link is None or outlet is None or not outlet.is_open or message.id in self._in_flight:
            return None
        try:
            outlet.send(publication.exchange, publication.routing_key, message, tell)
        except Unwritable:
            return None
        self._in_flight[message.id] = None
        return self._links.flight(link)

    def confirmed(self, publication: Publication, flight: Flight) -> None:
        """It was begun, and is confirmed."""
        flight.end()
        self.let_pass(publication.message.id)
        self._count("confirmed", publication)

    def failed(self, publication: Publication, flight: Flight, error: BaseException) -> BaseException:
        """It was begun, and has this for an answer; gives what to `go_on` after, before `let_pass`."""
        tried = meaning(publication, error, self._settings, is_alone=flight.is_alone)
        flight.end(None if isinstance(tried, aiormq.exceptions.ChannelClosed) else tried)
        return tried

    async def go_on(self, publication: Publication, deadline: float, tried: BaseException) -> None:
        """Try again where that is of use; raises as `publish` does."""
        await self._counted(publication, self._publish(publication, deadline, tried))

    def let_pass(self, id: str) -> None:
        """It has ended: another of its id may begin."""
        if (over := self._in_flight.pop(id)) is not None:
            over.set()

    def overdue(self, publication: Publication, flight: Flight) -> PublishUnknown:
        """It was begun, and has no answer in time."""
        why = TryAgain(self._no_answer)
        flight.end(why)
        self.let_pass(publication.message.id)
        self._count("unknown", publication)
        return unknown(publication, why)

    def abandoned(self, publication: Publication, flight: Flight) -> None:
        """It was begun, and nobody waits for it any more."""
        flight.end(asyncio.CancelledError())
        self.let_pass(publication.message.id)

    # -- questions, and the end

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

    @property
    def is_blocked(self) -> bool:
        """Whether the broker has said that it takes nothing more, for an alarm; may be asked from any thread."""
        return self._links.is_blocked

    async def close(self) -> None:
        """Close for good; what waits for a confirm ends, its fate unknown."""
        await self._links.close()

    # -- inside

    async def _counted(
        self, publication: Publication, publishing: Awaitable[None], began: float | None = None
    ) -> None:
        try:
            await publishing
        except PublishUnknown:
            self._count("unknown", publication)
            raise
        except BrokerJobsError:
            self._count("refused", publication)
            raise
        self._count("confirmed", publication, began)

    def _count(self, outcome: str, publication: Publication, began: float | None = None) -> None:
        if self._on_published is not None:
            seconds = None if began is None else asyncio.get_running_loop().time() - began
            self._on_published(outcome, publication, seconds)

    async def _in_turn(self, publication: Publication, deadline: float) -> None:
        """Let one publish of an id pass at a time: the client tells returned messages apart by their ids alone."""
        id = publication.message.id
        if id in self._in_flight:
            await self._until_over(id, deadline)
        self._in_flight[id] = None
        try:
            await self._publish(publication, deadline)
        finally:
            self.let_pass(id)

    async def _until_over(self, id: str, deadline: float) -> None:
        while id in self._in_flight:
            over = self._in_flight[id] = self._in_flight[id] or asyncio.Event()
            try:
                async with asyncio.timeout_at(deadline):
                    await over.wait()
            except TimeoutError:
                raise BrokerUnreachable(f"another send of the id {id} has not ended in time") from None

    async def _publish(
        self, publication: Publication, deadline: float, tried: BaseException | None = None
    ) -> None:
        """Try until there is an answer; the first try may have been made, and has ended so."""
        written = tried is not None

        async def once() -> None:
            nonlocal written, tried
            if tried is None:
                link = await self._links.get()
                was_written, trying = written, self._send(link, publication)
            else:
                was_written, trying = False, self._after(tried, publication)
            written, tried = True, None
            try:
                await trying
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
            raise unknown(publication, error) from None
        except PublishUnknown:
            raise
        except BrokerJobsError as error:
            if not written:
                raise
            raise unknown(publication, error) from None

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
                why = lost(error)
            with suppress(TimeoutError):  # the backoff, cut short by close()
                async with asyncio.timeout(min(_backoff(attempt), max(0.0, deadline - clock()))):
                    await self._links.closed.wait()
            attempt += 1
        raise _OutOfTime(why or self._no_answer)

    @property
    def _no_answer(self) -> str:
        where = f"RabbitMQ at {self._settings.address}"
        if self.is_blocked:
            return f"{where} blocks publishers: a memory or disk alarm"
        return f"{where} did not answer in time"

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
                    raise refusal(error, self._settings) from None
        await self._send_alone(publication)

    async def _after(self, tried: BaseException, publication: Publication) -> None:
        """What a try comes to that was made elsewhere."""
        if not isinstance(tried, aiormq.exceptions.ChannelClosed):
            raise tried
        await self._send_alone(publication)

    async def _send_alone(self, publication: Publication) -> None:
        """Which of those on a channel did the broker complain of? Each finds out for itself, one at a time."""
        async with self._alone:
            link = await self._links.get()
            with self._links.flight(link):
                async with link.connection.scratch_channel(confirms=True) as own:
                    try:
                        await self._frames(own, publication)
                    except aiormq.exceptions.ChannelClosed as error:
                        raise unknown(publication, refusal(error, self._settings)) from None
                    except PublishRefused as error:  # now; the first try's confirm may have been on its way
                        raise unknown(publication, error) from None

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
            raise unroutable(publication, reply_text(error)) from None
        except aiormq.exceptions.DeliveryError:
            raise Nacked(NACK) from None
        except (aiormq.exceptions.ChannelClosed, *LOST):
            raise
        except Exception as error:
            why = why_unwritable(publication)
            if why is None:
                raise TryAgain(lost(error)) from error
            raise PublishRefused(f"{publication.message.job} cannot be written as AMQP: {why}") from None

    async def _past_the_client(self, outlet: Outlet, publication: Publication) -> None:
        message = publication.message
        try:
            verdict = outlet.publish(publication.exchange, publication.routing_key, message)
            if outlet.is_crowded:
                await unless_lost(outlet.room(), None, "publish")
            await verdict
        except Unwritable as error:
            raise PublishRefused(f"{message.job} cannot be written as AMQP: {error}") from None
        except (Returned, Refused) as error:
            raise meaning(publication, error, self._settings) from None

    async def _look_for(self, queue: str) -> bool:
        link = await self._links.get()
        with self._links.flight(link):
            try:
                async with link.connection.scratch_channel() as channel:
                    await unless_lost(channel.queue_declare(queue, passive=True), None, f"look for {queue}")
            except aiormq.exceptions.ChannelNotFoundEntity:
                return False
            except aiormq.exceptions.ChannelClosed as error:
                raise refusal(error, self._settings) from None
        return True


def _backoff(attempt: int) -> float:
    state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]
    state.attempt_number = attempt
    return float(BACKOFF(state))
