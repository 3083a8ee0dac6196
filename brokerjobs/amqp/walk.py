"""Go through what is in a queue now: alone, from front to back, in bounded memory.

What is not acked on the way goes back when the walk ends. A consumer gets at most its prefetch of unsettled
messages; when it holds them all, it consumes anew, which opens another such window beside what is held. So a walk
through any number of messages has but one window of them in this process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiormq.exceptions
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from brokerjobs.amqp import declare
from brokerjobs.amqp.connection import LOST, Connection, ConnectionLost, deadline, explain_channel_error
from brokerjobs.amqp.delivery import STEP_TIMEOUT, Delivery
from brokerjobs.amqp.session import Session
from brokerjobs.errors import QueueInUse, UnknownQueue
from brokerjobs.settings import Settings
from brokerjobs.topology import reader_of

WINDOW = 100  # messages; each may be as large as the broker allows
DELIVERY_TIMEOUT = 5.0  # seconds


class Walk:
    """One way through a queue; `present` is how many messages were ready at its start."""

    def __init__(self, session: Session, queue: str, present: int) -> None:
        self.present = present
        self._session = session
        self._queue = queue
        self._arrived: asyncio.Queue[Delivery] = asyncio.Queue()

    async def deliveries(self, most: int | None = None) -> AsyncIterator[Delivery]:
        """Each message that was there at the start; ack it before asking for the next, or leave it.

        Args:
            most: stop after so many.

        Raises:
            ConnectionLost: the rest is back in the queue.
        """
        count = self.present if most is None else min(most, self.present)
        if count:
            await self._session.consume(self._queue, self._queue, WINDOW, self._arrived.put_nowait)
        held = 0
        for _ in range(count):
            if held == WINDOW:
                await self._session.renew(self._queue)
                held = 0
            delivery = await self._next()
            if delivery is None:  # somebody took it meanwhile, or it expired
                return
            yield delivery
            held += not delivery.is_settled

    async def _next(self) -> Delivery | None:
        if not self._arrived.empty():
            return self._arrived.get_nowait()
        arriving = asyncio.ensure_future(self._arrived.get())
        ended = asyncio.ensure_future(self._session.ended())
        try:
            await asyncio.wait(
                {arriving, ended}, timeout=DELIVERY_TIMEOUT, return_when=asyncio.FIRST_COMPLETED
            )
            if arriving.done():
                return arriving.result()
            if ended.done():
                raise ConnectionLost(self._session.reason)
        finally:
            arriving.cancel()
            ended.cancel()
        try:
            left = await self._session.ready(self._queue, self._queue)
        except LOST as error:
            raise ConnectionLost(str(error)) from None
        if not self._arrived.empty():  # before the answer: RabbitMQ takes seconds to write some headers
            return self._arrived.get_nowait()
        if left:
            raise ConnectionLost(f"nothing was delivered within {DELIVERY_TIMEOUT:g} s")
        return None


@asynccontextmanager
async def walk(settings: Settings, queue: str, purpose: str, *, patience: float = 0.0) -> AsyncIterator[Walk]:
    """Be the only one to go through a queue.

    Args:
        settings: where.
        queue: as the broker knows it.
        purpose: names the connection in the management page.
        patience: seconds to wait for somebody else to finish.

    Raises:
        QueueInUse: somebody else does so now, or a consumer reads the queue.
        UnknownQueue: there is no such queue.
        AccessRefused: the user may not declare the reader's mark, or not read the queue.
        BrokerUnreachable, ConfigurationError, ConnectionLost: no session.
    """
    session = await Session.open(settings, f"{purpose} {queue}")
    try:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(QueueInUse),
            stop=stop_after_delay(patience),
            wait=wait_fixed(0.1),
            reraise=True,
        ):
            with attempt:
                present = await _begin(session.connection, queue, settings)
        yield Walk(session, queue, present)
    finally:
        await session.close()


async def _begin(connection: Connection, queue: str, settings: Settings) -> int:
    """Be alone with the queue, then count its messages."""
    try:
        async with connection.scratch_channel() as channel, deadline(STEP_TIMEOUT, f"be alone with {queue}"):
            await channel.queue_declare(reader_of(queue), exclusive=True)
        found = await declare.count(connection, queue)
    except aiormq.exceptions.ChannelLockedResource:
        raise QueueInUse(
            f"somebody else goes through {queue!r} now, and only one may at a time: try again when they have finished"
        ) from None
    except aiormq.exceptions.ChannelAccessRefused as error:
        raise explain_channel_error(error, settings) from None
    except LOST as error:
        raise ConnectionLost(str(error)) from None
    if found is None:
        raise UnknownQueue(
            f"RabbitMQ at {settings.address} has no queue {queue!r}; is the name right? A queue is made by "
            "`brokerjobs topology apply`, or by a worker when it starts"
        )
    present, consumers = found
    if consumers:
        raise QueueInUse(
            f"queue {queue!r} has {consumers} consumer{'s' if consumers > 1 else ''} of another program, which would "
            "take messages away meanwhile: stop it first"
        )
    return present
