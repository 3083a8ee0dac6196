"""The service over one dead letter queue. Nothing leaves the queue before its replay is confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from brokerjobs import topology
from brokerjobs.amqp.connection import LOST, ConnectionLost
from brokerjobs.amqp.delivery import Delivery
from brokerjobs.amqp.publisher import Publisher
from brokerjobs.amqp.walk import Walk, walk
from brokerjobs.dead_letters.letter import DeadLetter, Filter, read
from brokerjobs.dead_letters.moving import Action, Drop, Effect, OnStep, Pace, Progress, Replay
from brokerjobs.errors import BrokerUnreachable, UnknownDeadLetter, UnknownQueue
from brokerjobs.failure import cut
from brokerjobs.settings import Settings
from brokerjobs.topology import Names

PAGE = 50
PATIENCE = 3.0  # seconds to wait for somebody else who looks
MOST_GROUPS = 1_000
OTHERS = "(others)"
GROUP_LINE_LIMIT = 200  # bytes
EVERYTHING = Filter()
_CANDIDATES = 5  # named when a beginning fits several ids
_JOBS = 3  # named in a group


@dataclass(frozen=True, slots=True)
class Page:
    """Some dead letters, oldest first.

    Args:
        letters: one of each; `copies` says how many were seen.
        more: whether the queue holds others that match.
        present: messages in the dead letter queue.
    """

    letters: tuple[DeadLetter, ...]
    more: bool
    present: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Dead letters with one reason, error class, and first line of the error.

    Args:
        error: class and first line.
        count: how many messages.
        oldest: when the first of them died, seconds since the epoch.
        newest: when the last did.
        jobs: names of up to three of their jobs.
        example: the id of one.
    """

    reason: str
    error: str
    count: int
    oldest: float | None
    newest: float | None
    jobs: tuple[str, ...]
    example: str


class DeadLetters:
    """The dead letters of one queue; one reader of a queue at a time.

    Every method may raise
        UnknownQueue: there is no such queue.
        QueueInUse: somebody else goes through these dead letters; tried for three seconds.
        BrokerUnreachable: no connection, or it was lost; what was not done is still in the queue.
        AccessRefused, ConfigurationError: the broker does not let us.

    Args:
        settings: where.
        queue: as users say it: `emails` for the dead letters in `emails.dead`.
    """

    def __init__(self, settings: Settings, queue: str) -> None:
        self.queue = topology.check_word(queue, "queue")
        self._settings = settings
        self._names = Names(settings.namespace)

    async def page(self, chosen: Filter = EVERYTHING, *, limit: int = PAGE) -> Page:
        """Look at dead letters; all of them stay.

        Args:
            chosen: which.
            limit: at most so many, whose bodies are held in memory.
        """
        found: dict[object, DeadLetter] = {}
        more = False
        async with self._walk("list of") as dead:
            async for letter, _ in self._letters(dead):
                if not chosen.matches(letter):
                    continue
                key = letter.identity or object()
                if known := found.get(key):
                    found[key] = replace(known, copies=known.copies + 1)
                elif len(found) == limit:
                    more = True
                    break
                else:
                    found[key] = letter
        letters = sorted(found.values(), key=lambda letter: letter.died_at or 0.0)
        return Page(tuple(letters), more, dead.present)

    async def get(self, id: str) -> DeadLetter:
        """The dead letter with this id, or the only one whose id begins so.

        Raises:
            UnknownDeadLetter: there is none, or there are several.
        """
        (full,) = await self.resolve([id])
        page = await self.page(Filter(ids=(full,)), limit=_CANDIDATES)
        exact = [letter for letter in page.letters if letter.id == full]
        if not exact:  # somebody replayed it between two looks
            raise self._unknown(id)
        return exact[0]

    async def resolve(self, ids: Sequence[str]) -> tuple[str, ...]:
        """The whole ids for these, each of which may be the beginning of one.

        Raises:
            UnknownDeadLetter: for one of them there is none, or there are several.
        """
        fitting: dict[str, set[str]] = {id: set() for id in ids}
        async with self._walk("search of") as dead:
            async for letter, _ in self._letters(dead):
                for id, fits in fitting.items():
                    if letter.id == id or (letter.id.startswith(id) and len(fits) <= _CANDIDATES):
                        fits.add(letter.id)
        return tuple(dict.fromkeys(self._only(id, fits) for id, fits in fitting.items()))

    async def groups(self, chosen: Filter = EVERYTHING) -> list[Group]:
        """The dead letters by what they died of, the most frequent first."""
        groups: dict[tuple[str, str], Group] = {}
        async with self._walk("list of") as dead:
            async for letter, _ in self._letters(dead):
                if chosen.matches(letter):
                    key = letter.reason, cut(letter.summary, GROUP_LINE_LIMIT)
                    if key not in groups and len(groups) >= MOST_GROUPS:
                        key = OTHERS, OTHERS
                    groups[key] = _join(groups.get(key), key, letter)
        return sorted(groups.values(), key=lambda group: -group.count)

    async def replay(
        self,
        chosen: Filter = EVERYTHING,
        *,
        limit: int | None = None,
        rate: float | None = None,
        delay: float = 0.0,
        dry_run: bool = False,
        stop: asyncio.Event | None = None,
        on_step: OnStep = lambda progress, letter: None,
    ) -> Progress:
        """Send dead letters back to exactly the queue in which they died; each is confirmed before it is removed.

        Only what is there at the start goes, and of several copies of one only the first. A crash on the way
        can repeat one job, under the same id, and loses none.

        Args:
            chosen: which.
            limit: at most so many.
            rate: at most so many a second.
            delay: seconds until they run.
            dry_run: only count.
            stop: when set, it ends after the message in hand.
            on_step: told after each message.

        Raises:
            PublishUnknown: one was not confirmed in time; it stays, so that another replay repeats it.
        """
        stop = stop or asyncio.Event()
        topology.route_to_queue(self._names, self.queue, delay)  # a delay that cannot be is said at once
        publisher = Publisher(self._settings, f"replay of {self.queue}")
        action = Replay(
            names=self._names,
            publisher=publisher,
            timeout=self._settings.publish_timeout,
            pace=Pace(rate, stop),
            stop=stop,
            limit=limit,
            delay=delay,
            dry_run=dry_run,
        )
        try:
            await self._check_work_queue(publisher)
            return await self._go_through("replay of", chosen, action, stop, on_step)
        finally:
            await publisher.close()

    async def drop(
        self,
        chosen: Filter = EVERYTHING,
        *,
        limit: int | None = None,
        dry_run: bool = False,
        stop: asyncio.Event | None = None,
        on_step: OnStep = lambda progress, letter: None,
    ) -> Progress:
        """Remove dead letters for good, copies included; arguments as for `replay`."""
        action = Drop(limit=limit, dry_run=dry_run)
        return await self._go_through("drop of", chosen, action, stop or asyncio.Event(), on_step)

    # -- inside

    async def _go_through(
        self, purpose: str, chosen: Filter, action: Action, stop: asyncio.Event, on_step: OnStep
    ) -> Progress:
        async with self._walk(purpose) as dead:
            progress = Progress(present=dead.present)
            async for letter, delivery in self._letters(dead):
                effect: Effect = "stopped" if stop.is_set() else "kept"
                if effect == "kept" and chosen.matches(letter):
                    effect = await action.take(letter, delivery)
                progress = progress.after(effect, action.problem)
                on_step(progress, letter if effect == "done" else None)
                if progress.stopped:
                    break
            return progress

    @asynccontextmanager
    async def _walk(self, purpose: str) -> AsyncIterator[Walk]:
        queue = self._names.dead(self.queue)
        try:
            async with walk(self._settings, queue, purpose, patience=PATIENCE) as dead:
                yield dead
        except ConnectionLost as error:  # not LOST: a callback's own broken pipe is not ours
            raise self._lost(error) from None

    async def _letters(self, dead: Walk) -> AsyncIterator[tuple[DeadLetter, Delivery]]:
        async for delivery in dead.deliveries():
            letter = read(
                delivery.properties, delivery.body, routing_key=delivery.routing_key, queue=self.queue
            )
            yield letter, delivery

    async def _check_work_queue(self, publisher: Publisher) -> None:
        """Else the replayed would pile up unrouted."""
        queue = self._names.queue(self.queue)
        try:
            exists = await publisher.queue_exists(queue, timeout=self._settings.publish_timeout)
        except (*LOST, TimeoutError) as error:
            raise self._lost(error) from None
        if not exists:
            raise UnknownQueue(
                f"RabbitMQ at {self._settings.address} has no queue {queue!r} to replay to; start a worker "
                f"(`brokerjobs consume {self.queue}`), or run `brokerjobs topology apply`"
            )

    def _lost(self, error: BaseException) -> BrokerUnreachable:
        return BrokerUnreachable(
            f"the connection to RabbitMQ at {self._settings.address} was lost ({error}); what was not done is "
            f"still in {self._names.dead(self.queue)!r}, so run it again"
        )

    def _only(self, id: str, fits: set[str]) -> str:
        if id in fits or len(fits) == 1:
            return id if id in fits else fits.pop()
        if not fits:
            raise self._unknown(id)
        some = ", ".join(sorted(fits)[:_CANDIDATES]) + (", …" if len(fits) > _CANDIDATES else "")
        raise UnknownDeadLetter(f"several ids in {self._names.dead(self.queue)!r} begin with {id!r}: {some}")

    def _unknown(self, id: str) -> UnknownDeadLetter:
        return UnknownDeadLetter(f"no dead letter in {self._names.dead(self.queue)!r} has the id {id!r}")


def _join(group: Group | None, key: tuple[str, str], letter: DeadLetter) -> Group:
    died, job = letter.died_at, letter.message.job
    if group is None:
        return Group(
            reason=key[0], error=key[1], count=1, oldest=died, newest=died, jobs=(job,), example=letter.id
        )
    times = [time for time in (group.oldest, group.newest, died) if time is not None]
    return replace(
        group,
        count=group.count + 1,
        oldest=min(times, default=None),
        newest=max(times, default=None),
        jobs=group.jobs if job in group.jobs or len(group.jobs) == _JOBS else (*group.jobs, job),
    )
