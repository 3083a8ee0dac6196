"""Looks at a namespace again and again, over one connection, and asks its workers each time.

A look must cost little, since many may watch a broker that is in trouble: the management API is asked every few seconds
only, and for queues that are not there hardly ever, since RabbitMQ logs each question for one as an error.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from types import TracebackType
from typing import Self

from brokerjobs import delay
from brokerjobs.amqp import control
from brokerjobs.amqp.connection import LOST, Connection, ConnectionLost
from brokerjobs.amqp.control import Line
from brokerjobs.errors import AccessRefused, BrokerUnreachable, TopologyMismatch
from brokerjobs.inspection.course import Look
from brokerjobs.inspection.management import Listing
from brokerjobs.inspection.snapshot import (
    Counts,
    Snapshot,
    ask,
    broker_names,
    counted,
    found,
    is_queue,
    of_this_broker,
)
from brokerjobs.settings import Settings
from brokerjobs.topology import TO_WORKERS, Names, check_word
from brokerjobs.worker_state import OPERATOR, WorkerState, read

GRACE = 0.05  # seconds without an answer, after which those that nobody expects are not waited for
LISTED_FOR = 5.0  # seconds between questions to the management API: its counts are as old
UNHEARD_FOR = 10.0  # seconds before a control exchange that was not there is looked for again
MISSED_FOR = 30.0  # seconds before what was not there is looked for again
BLOCKED = "workers are not asked: RabbitMQ blocks publishers (memory or disk alarm)"
SLOW = "workers are not asked: RabbitMQ takes its time to confirm the question"


class Watch:
    """An open eye on a namespace.

    Args:
        settings: where; management_url says where the management API is.
        queues: that are known to the caller.
        others: whether to look at others too that the management API lists or workers consume.
        patience: seconds that workers have to answer.
    """

    def __init__(
        self, settings: Settings, queues: Iterable[str] = (), *, others: bool = True, patience: float = 1.0
    ) -> None:
        self._settings = settings
        self._names = Names(settings.namespace)
        self._given = [check_word(queue, "queue") for queue in queues]
        self._others = others
        self._patience = patience
        self._open = AsyncExitStack()
        self._listed, self._missing = Listing({}), ""
        self._list_at = 0.0
        self._line: Line | None = None
        self._line_at = 0.0
        self._unasked = ""
        self._absent: dict[str, float] = {}
        self._states: dict[str, WorkerState] = {}
        self._heard: dict[str, float] = {}

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            BrokerUnreachable, ConfigurationError: no connection.
        """
        self._connection = await Connection.open(self._settings, "watch")
        self._open.push_async_callback(self._connection.close)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    async def look(self) -> Look:
        """Look once.

        Raises:
            BrokerUnreachable: the connection has ended; open another.
            AccessRefused: the user may not look at a queue.
        """
        try:
            return await self._look()
        except LOST as error:
            raise BrokerUnreachable(
                f"the connection to RabbitMQ at {self._settings.address} was lost: {error}"
            ) from None

    async def _look(self) -> Look:
        if self._connection.is_closed:  # where nothing is declared yet, nothing else would tell
            raise ConnectionLost("it is closed")
        at = time.time()
        await self._ask_workers()
        await self._list()
        queues = self._queues()
        snapshot = await self._count(queues)
        await self._hear(snapshot, at)
        if (with_theirs := self._queues()) != queues:
            snapshot = await self._count(with_theirs)
        self._forget_those_gone(snapshot, at)
        return Look(
            snapshot=replace(snapshot, at=at, queues=tuple(map(self._as_workers_say, snapshot.queues))),
            workers=tuple(self._states[worker] for worker in sorted(self._states)),
            heard=dict(self._heard),
            missing=self._unasked,
        )

    def _queues(self) -> list[str]:
        if not self._others:
            return sorted(set(self._given))
        theirs = (queue for state in self._states.values() for queue in state.queues)
        return sorted({*self._given, *found(self._listed.unacked, self._names), *filter(is_queue, theirs)})

    # -- what RabbitMQ tells

    async def _list(self) -> None:
        if (now := time.monotonic()) >= self._list_at:
            listed, missing = of_this_broker(*await ask(self._settings), self._connection.cluster_name)
            self._listed, self._missing = listed, missing
            self._list_at = now + (MISSED_FOR if missing else LISTED_FOR)

    async def _count(self, queues: list[str]) -> Snapshot:
        absent = set(self._known_absent(queues))
        snapshot = await counted(self._connection, self._names, queues, self._listed, self._missing, absent)
        until = time.monotonic() + MISSED_FOR
        self._absent |= {name: until for name in self._missed(snapshot) if name not in absent}
        return snapshot

    def _known_absent(self, queues: list[str]) -> Iterator[str]:
        names, now = self._names, time.monotonic()
        told = {queue for state in self._states.values() for queue in state.queues}
        yield from (names.paused(queue) for queue in told)  # workers tell who has paused it
        there = set(broker_names(names, list(told))) if told else set()
        if self._listed.unacked:
            missed = (name for name in broker_names(names, queues) if name not in self._listed.unacked)
        else:
            missed = (name for name, until in self._absent.items() if now < until)
        yield from (name for name in missed if name not in there)

    def _missed(self, snapshot: Snapshot) -> Iterator[str]:
        """The names in the broker that were looked for in vain."""
        names = self._names
        for counts in snapshot.queues:
            if counts.ready is None:
                yield from (names.queue(counts.queue), names.dead(counts.queue))
            if not counts.paused:
                yield names.paused(counts.queue)
        if snapshot.unrouted is None:
            yield from (names.unrouted, *map(names.level, range(delay.LEVELS)))

    # -- what workers tell

    async def _ask_workers(self) -> None:
        if self._line is None and time.monotonic() >= self._line_at:
            self._line_at = time.monotonic() + UNHEARD_FOR
            self._unasked = ""
            try:
                self._asking, self._line = await self._open.enter_async_context(self._opened_line())
            except TopologyMismatch:  # no worker has ever been here
                return
            except AccessRefused as error:
                self._unasked = f"workers, and what follows from what they tell, are not shown: {error}"
        if self._line is not None:
            self._unasked = BLOCKED if self._asking.alarm.is_on else ""
            if not self._unasked:
                try:
                    async with asyncio.timeout(self._patience):
                        await self._line.say(f"{TO_WORKERS}.ping", {})
                except TimeoutError:
                    self._unasked = BLOCKED if self._asking.alarm.is_on else SLOW

    @asynccontextmanager
    async def _opened_line(self) -> AsyncIterator[tuple[Connection, Line]]:
        """On a connection of its own: in an alarm RabbitMQ reads no more from one that publishes."""
        connection = await Connection.open(self._settings, "watch, asking")
        try:
            async with control.line(connection, self._names, self._settings) as line:
                yield connection, line
        finally:
            await connection.close()

    async def _hear(self, snapshot: Snapshot, asked_at: float) -> None:
        """Take in answers until all have answered who are known to be there, and nobody else does."""
        if self._line is None:
            return
        clock = asyncio.get_running_loop().time
        ends = clock() + self._patience
        while True:
            bodies = [body async for body in self._line.replies(GRACE)]
            for body in bodies:
                if (state := read(body)) is not None:
                    self._states[state.worker] = state
                    self._heard[state.worker] = time.time()
            if clock() >= ends or (not bodies and self._all_have_answered(snapshot, asked_at)):
                return

    def _all_have_answered(self, snapshot: Snapshot, asked_at: float) -> bool:
        is_known = min(self._heard.values(), default=asked_at) >= asked_at
        return is_known and not self._silent(snapshot, asked_at)

    def _silent(self, snapshot: Snapshot, asked_at: float) -> set[str]:
        """The queues with consumers that have not answered."""
        answered = Counter(
            queue
            for state in self._states.values()
            if self._heard[state.worker] >= asked_at
            for queue in state.queues
        )
        return {counts.queue for counts in snapshot.queues if counts.consumers > answered[counts.queue]}

    def _as_workers_say(self, counts: Counts) -> Counts:
        """The mark of a pause is not looked for where there are workers."""
        paused = any(OPERATOR in state.paused.get(counts.queue, ()) for state in self._states.values())
        return replace(counts, paused=True) if paused else counts

    def _forget_those_gone(self, snapshot: Snapshot, asked_at: float) -> None:
        """A worker that does not answer is there as long as somebody consumes who has not answered."""
        silent = self._silent(snapshot, asked_at)
        for state in list(self._states.values()):
            if self._heard[state.worker] < asked_at and silent.isdisjoint(state.queues):
                del self._states[state.worker], self._heard[state.worker]
