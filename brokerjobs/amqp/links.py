"""The asyncio publisher's connections: one to begin on, and those that still owe a verdict."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import suppress
from types import TracebackType
from typing import Self

from aiormq.abc import AbstractChannel

from brokerjobs.amqp.connection import CLOSE_TIMEOUT, LOST, Connection, ConnectionLost
from brokerjobs.amqp.outlet import Outlet, agrees_with_client
from brokerjobs.connection_record import ConnectionRecord
from brokerjobs.settings import Settings

REST = 5.0  # seconds, more or less by half, between two tries to connect that nobody waits for


class TryAgain(Exception):
    """This try has no answer, and another may have one."""


class Nacked(TryAgain):
    """The broker has seen the message, and said no for now."""


DOUBTS = (asyncio.CancelledError, TryAgain, *LOST)


class Link:
    """A connection with its confirm channel, and the count of what is in flight on it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.channel: AbstractChannel | None = None
        self.outlet: Outlet | None = None
        self.in_flight = 0
        self.begun = 0
        self.is_retired = False
        self.closing: asyncio.Task[None] | None = None

    @property
    def is_usable(self) -> bool:
        return not (self.connection.is_closed or self.channel is None or self.channel.is_closed)


class Flight:
    """One publish, or question, on a link, from now on until `end`; made by `Links.flight`."""

    __slots__ = ("_link", "_links", "_number", "_was_alone")

    def __init__(self, links: Links, link: Link) -> None:
        self._links = links
        self._link = link
        self._was_alone = link.in_flight == 0
        link.in_flight += 1
        link.begun = self._number = link.begun + 1

    def end(self, error: BaseException | None = None) -> None:
        """It is no more; a doubt retires the link."""
        self._links.landed(self._link, error)

    @property
    def is_alone(self) -> bool:
        """Whether nothing else was in flight since it began."""
        return self._was_alone and self._link.begun == self._number

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(error)


class Links:
    """Gives the link to begin on, opened when needed.

    Args:
        settings: where to connect.
        role: the connection's name in the management page.
        record: told of the connections. Where it is told of one that could not be had, it is sought until it is had, or
            nobody would know when it can be had again.
    """

    def __init__(self, settings: Settings, role: str, record: ConnectionRecord | None = None) -> None:
        self._settings = settings
        self._record = record
        self._role = role
        self._current: Link | None = None
        self._open: set[Link] = set()
        self._opening: asyncio.Task[Link] | None = None
        self._seeking: asyncio.Task[None] | None = None
        self._guard: AsyncGenerator[None, None] | None = None
        self.closed = asyncio.Event()

    @property
    def current(self) -> Link | None:
        """The link to begin on, as far as is known; only `get` makes sure that it is open."""
        return self._current

    @property
    def is_blocked(self) -> bool:
        """Whether the broker takes nothing of what was sent last."""
        return any(link.connection.alarm.is_on for link in list(self._open))

    async def get(self) -> Link:
        """A link whose channel is open.

        Raises:
            BrokerUnreachable, ConnectionLost, TryAgain: worth another try.
            ConfigurationError: wrong password or virtual host.
        """
        if self._current is not None and self._current.is_usable:
            return self._current
        if self._opening is None:
            # One task for all who wait: they go on in the order in which they came, or fail together.
            self._opening = asyncio.create_task(self._make_usable())
            self._opening.add_done_callback(self._opened)
        try:
            return await asyncio.shield(self._opening)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                raise TryAgain("the client was closed") from None
            raise

    async def _make_usable(self) -> Link:
        if self._guard is None:
            self._guard = self._until_the_loop_ends()
            await anext(self._guard)
        if self._current is not None and self._current.connection.is_closed:
            self.retire(self._current)
        if self._current is None:
            link = Link(await self._connect())
            self._open.add(link)
            if self.closed.is_set():
                self.retire(link)
                raise TryAgain("the client was closed")
            self._current = link
        link = self._current
        if not link.is_usable:
            with self.flight(link):
                link.channel = await link.connection.channel(confirms=True)
                link.outlet = _outlet_of(link.connection, link.channel) if self._settings.fast_lane else None
        return link

    async def _connect(self) -> Connection:
        """A connection; where nobody counts them it is all the same."""
        if (record := self._record) is None:
            return await Connection.open(self._settings, self._role)
        try:
            connection = await Connection.open(self._settings, self._role)
        except Exception:
            record.lost()
            if self._seeking is None:
                self._seeking = asyncio.create_task(self._seek())
            raise
        record.opened()
        connection.alarm.follow(record.alarmed)
        return connection

    async def _seek(self) -> None:
        """Try to connect until that succeeds, whether or not anybody wants to publish."""
        try:
            while not self.closed.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(REST * random.uniform(0.5, 1.5)):
                        await self.closed.wait()
                        return
                with suppress(Exception):  # whatever it was, another try may do
                    await self.get()
                    return
        finally:
            self._seeking = None

    def _opened(self, task: asyncio.Task[Link]) -> None:
        self._opening = None
        if not task.cancelled():
            task.exception()  # those who waited have it, if they still do

    async def _until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        """What a loop does last is to finish its async generators: so `asyncio.run(job.asend())` ends in silence."""
        try:
            yield
        finally:
            await self._close_all()

    def flight(self, link: Link) -> Flight:
        """Count what is in flight on a link, within the block or until it is ended.

        After a doubt (a deadline, a loss) nothing new begins on that link: the client tells returned messages
        apart by their ids alone, so the next publish of an id must not go the same way.
        """
        return Flight(self, link)

    def landed(self, link: Link, error: BaseException | None) -> None:
        """One that was in flight is so no more."""
        if isinstance(error, DOUBTS) and not isinstance(error, Nacked):
            self.retire(link)
        link.in_flight -= 1
        if link.is_retired and not link.in_flight:
            self._close_soon(link)

    def retire(self, link: Link) -> None:
        """Let nothing begin on this link any more; it closes when all in flight have their verdicts."""
        if self._current is link:
            self._current = None
        link.is_retired = True
        if not link.in_flight:
            self._close_soon(link)

    async def close(self) -> None:
        """Close all for good, whatever is in flight."""
        self.closed.set()
        if going := {task for task in (self._opening, self._seeking) if task is not None}:
            for task in going:
                task.cancel()
            await asyncio.wait(going, timeout=CLOSE_TIMEOUT)
        guard, self._guard = self._guard, None
        if guard is not None:
            await guard.aclose()
        await self._close_all()

    async def _close_all(self) -> None:
        for link in list(self._open):
            self.retire(link)
            self._close_soon(link)
        if closings := [link.closing for link in self._open if link.closing is not None]:
            await asyncio.wait(closings)

    def _close_soon(self, link: Link) -> None:
        if link.closing is None:
            link.closing = asyncio.create_task(link.connection.close())
            link.closing.add_done_callback(lambda _: self._open.discard(link))


def _outlet_of(connection: Connection, channel: AbstractChannel) -> Outlet | None:
    """A way past the client library; None where there is none."""
    streams = connection.streams
    if streams is None or not agrees_with_client():
        return None
    outlet = Outlet(channel.number, streams.writer, connection.frame_max)
    taps = streams.reader.taps
    taps[channel.number] = outlet.tap

    def closed(closing: asyncio.Future[None]) -> None:
        taps.pop(channel.number, None)
        why = None if closing.cancelled() else closing.exception()
        outlet.end(why if isinstance(why, LOST) else ConnectionLost("the channel closed"))

    channel.closing.add_done_callback(closed)
    return outlet
