"""A publisher process: sends orders at a steady rate until SIGTERM, and journals what each send was told.

    python -m tests.chaos.publisher blocking|asyncio RATE SEED NAMESPACE…

What is unknown, or met no broker at all, is sent again under its id, as an application would; what was refused
otherwise is dropped.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from brokerjobs import settings
from brokerjobs.client import Client, SendManyError
from brokerjobs.errors import BrokerJobsError, BrokerUnreachable, ConfigurationError, PublishRefused
from brokerjobs.transport import JobHandle
from tests.chaos import journal
from tests.chaos.history import Fate
from tests.chaos.orders import Order, draw

THREADS = 6
BATCH = 10
IN_FLIGHT = 30
RESENDS = 5
PAUSE = 0.5  # seconds after a send that was not confirmed
CATCH_UP = 1.0  # seconds of load that may be made up for after a stall


@dataclass
class Office:
    """Clients by namespace, and the journal of their sends."""

    namespaces: Sequence[str]
    journal: journal.Journal = field(default_factory=journal.of_this_process)

    def __post_init__(self) -> None:
        self.clients = {name: Client(settings=settings.load(namespace=name)) for name in self.namespaces}
        self._calls = itertools.count(1)

    def begin(self, namespace: str, order: Order) -> int:
        queue = f"{namespace}.{order.queue}" if namespace else order.queue
        call = next(self._calls)
        self.journal.note(
            "invoke", call=call, id=order.message.id, queue=queue, end=order.end, delay=order.delay
        )
        return call

    def end(self, call: int, outcome: JobHandle | Exception) -> bool:
        """Note what a send was told; gives whether to send it again."""
        if isinstance(outcome, JobHandle):
            self.journal.note("ok", call=call)
            return False
        error = f"{type(outcome).__name__}: {outcome}"[:300]
        if not isinstance(outcome, BrokerJobsError):
            self.journal.note("defect", text=error)
        fate: Fate = "refused" if isinstance(outcome, (PublishRefused, ConfigurationError)) else "unknown"
        self.journal.note(fate, call=call, error=error)
        return fate == "unknown" or isinstance(outcome, BrokerUnreachable)


class Pace:
    """When to send next, at a steady rate."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._next = time.monotonic()

    def wait_for(self, count: int) -> float:
        """Seconds until so many may be sent."""
        now = time.monotonic()
        self._next = max(self._next, now - CATCH_UP) + count / self._per_second
        return self._next - now


def blocking(office: Office, rate: float, seed: int) -> None:
    """Threads that send one by one and in batches."""
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())

    def work(number: int) -> None:
        rng, pace = random.Random(f"{seed} {number}"), Pace(rate / THREADS)
        while not ending.is_set():
            namespace = rng.choice(list(office.namespaces))
            orders = [draw(rng) for _ in range(rng.choice((1, 1, BATCH)))]
            ending.wait(pace.wait_for(len(orders)))
            again = orders
            for _ in range(1 + RESENDS):
                again = _send(office, namespace, again)
                if not again:
                    break
                ending.wait(PAUSE)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for client in office.clients.values():
        client.close()


def _send(office: Office, namespace: str, orders: Sequence[Order]) -> list[Order]:
    """Send them; gives those to send again."""
    client = office.clients[namespace]
    calls = [office.begin(namespace, order) for order in orders]
    outcomes: Sequence[JobHandle | Exception]
    try:
        if len(orders) > 1:
            outcomes = client.send_many(order.message for order in orders)
        else:
            outcomes = [client.send_message(orders[0].message)]
    except SendManyError as error:
        outcomes = error.results
    except Exception as error:
        outcomes = [error] * len(orders)
    ends = [office.end(call, outcome) for call, outcome in zip(calls, outcomes, strict=True)]
    return [order for order, again in zip(orders, ends, strict=True) if again]


async def on_loop(office: Office, rate: float, seed: int) -> None:
    """Tasks that each send one message."""
    ending, slots = asyncio.Event(), asyncio.Semaphore(IN_FLIGHT)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    rng, pace = random.Random(seed), Pace(rate)

    async def send(namespace: str, order: Order) -> None:
        try:
            for _ in range(1 + RESENDS):
                if not await _asend(office, namespace, order):
                    return
                await _until(ending, PAUSE)
        finally:
            slots.release()

    async with asyncio.TaskGroup() as group:
        while not ending.is_set():
            await slots.acquire()
            group.create_task(send(rng.choice(list(office.namespaces)), draw(rng)))
            await _until(ending, pace.wait_for(1))
    for client in office.clients.values():
        await client.aclose()


async def _asend(office: Office, namespace: str, order: Order) -> bool:
    call = office.begin(namespace, order)
    outcome: JobHandle | Exception
    try:
        outcome = await office.clients[namespace].asend_message(order.message)
    except Exception as error:
        outcome = error
    return office.end(call, outcome)


async def _until(event: asyncio.Event, seconds: float) -> None:
    if seconds > 0:
        await asyncio.wait([waiting := asyncio.ensure_future(event.wait())], timeout=seconds)
        waiting.cancel()


def main(style: str, rate: str, seed: str, *namespaces: str) -> None:
    office = Office(namespaces)
    if style == "asyncio":
        asyncio.run(on_loop(office, float(rate), int(seed)))
    else:
        blocking(office, float(rate), int(seed))


if __name__ == "__main__":
    main(*sys.argv[1:])
