"""Many messages through the asyncio publisher, without a task, a timer and a future for each.

As long as all is well a message is written here, and its confirm ends it. Whatever else becomes of it goes on as a
single send, which knows what to do then, with what is left of its time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial

from brokerjobs.amqp.links import Flight
from brokerjobs.amqp.publisher import Publisher
from brokerjobs.errors import BrokerJobsError
from brokerjobs.transport import Publication

WINDOW = 500  # unconfirmed messages
REFILL = 125  # of which so many are awaited together: each wait is a turn of the loop
TURN = 100  # messages after which others on the loop may go on
TURN_SIZE = 256 * 1024  # bytes of bodies, likewise

Sent = Publication | BrokerJobsError


class Stream:
    """Publishes one stream of messages.

    Args:
        publisher: goes on with what is not confirmed at once.
        timeout: seconds that each message may take.
    """

    def __init__(self, publisher: Publisher, timeout: float) -> None:
        self._publisher = publisher
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._tasks = asyncio.TaskGroup()
        self._sent: list[Sent] = []
        self._begun: dict[int, tuple[Publication, float, Flight]] = {}  # with its deadline; the oldest first
        self._going_on = 0
        self._failure: Exception | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._awake: asyncio.Future[None] | None = None
        self._few = 0  # under way, at which whoever waits goes on

    async def send(self, publications: Iterable[Sent]) -> list[Sent]:
        """Gives each in order once all have ended: as it was if it is confirmed, or its error.

        Args:
            publications: taken as needed; an error among them stands for a message that was refused before. What
                the iterable raises comes out when all before it have ended.
        """
        async with self._tasks:
            try:
                await self._begin_all(iter(publications))
                await self._until(0)
            finally:
                self._abandon()
        if self._failure is not None:
            raise self._failure
        return self._sent

    async def _begin_all(self, source: Iterator[Sent]) -> None:
        since, size = 0, 0
        while (publication := self._next(source)) is not None:
            self._sent.append(publication)
            if isinstance(publication, BrokerJobsError):
                continue
            self._begin(len(self._sent) - 1, publication)
            since, size = since + 1, size + len(publication.message.body)
            if since >= TURN or size >= TURN_SIZE:
                since = size = 0
                await asyncio.sleep(0)  # noqa: TID251  (one turn: others on this loop, and the socket)
                while self._publisher.is_crowded and self._under_way:
                    await self._until(self._under_way - 1)
            if len(self._begun) + self._going_on >= WINDOW:
                await self._until(WINDOW - REFILL)

    def _next(self, source: Iterator[Sent]) -> Sent | None:
        try:
            return next(source, None)
        except Exception as error:
            self._failure = error
            return None

    def _begin(self, number: int, publication: Publication) -> None:
        publication = self._publisher.signed(publication)
        deadline = self._loop.time() + self._timeout
        flight = self._publisher.begin(publication, partial(self._told, number))
        if flight is None:
            publish = partial(self._publisher.publish, publication, timeout=self._timeout, of_stream=True)
            self._go_on(number, publish)
            return
        self._begun[number] = publication, deadline, flight
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._overdue)

    def _told(self, number: int, error: BaseException | None) -> None:
        """What became of a message that was begun."""
        if (begun := self._begun.pop(number, None)) is None:
            return
        publication, deadline, flight = begun
        if error is None:
            self._publisher.confirmed(publication, flight)
        else:
            tried = self._publisher.failed(publication, flight, error)
            task = self._go_on(number, partial(self._publisher.go_on, publication, deadline, tried))
            task.add_done_callback(lambda _: self._publisher.let_pass(publication.message.id))
        if self._awake is not None:
            self._look()

    def _go_on(self, number: int, publish: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        async def go_on() -> None:
            try:
                await publish()
            except BrokerJobsError as error:
                self._sent[number] = error

        def ended(_: asyncio.Task[None]) -> None:  # or cancelled before it had begun
            self._going_on -= 1
            self._look()

        self._going_on += 1
        task = self._tasks.create_task(go_on())
        task.add_done_callback(ended)
        return task

    def _overdue(self) -> None:
        """The oldest is out of time."""
        self._timer, now = None, self._loop.time()
        for number, (publication, deadline, flight) in list(self._begun.items()):
            if deadline > now:
                self._timer = self._loop.call_at(deadline, self._overdue)
                break
            del self._begun[number]
            self._sent[number] = self._publisher.overdue(publication, flight)
        self._look()

    def _abandon(self) -> None:
        """Nobody waits any more for what is still under way."""
        if self._timer is not None:
            self._timer.cancel()
        for publication, _, flight in self._begun.values():
            self._publisher.abandoned(publication, flight)
        self._begun.clear()

    # -- waiting

    @property
    def _under_way(self) -> int:
        return len(self._begun) + self._going_on

    async def _until(self, few: int) -> None:
        """Wait until no more than so many are under way."""
        self._few = few
        while self._under_way > few:
            self._awake = self._loop.create_future()
            try:
                await self._awake
            finally:
                self._awake = None

    def _look(self) -> None:
        if self._awake is not None and self._under_way <= self._few and not self._awake.done():
            self._awake.set_result(None)
