"""What one delayed job costs the broker, in CPU: to publish it, and until it lies in its queue.

    python -m bench.delay_cost

A batch is published with confirms and waited for in its queue; the broker's CPU over that time, less what an idle
broker uses, is divided by the messages. "no delay" goes through the same due exchange without a wait. The nodes do
not spin while they wait (`+sbwt none`), so that the figures are work.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time

from bench.brokers import VERSIONS, cpu_seconds, node
from brokerjobs import settings, topology
from brokerjobs.amqp import declare
from brokerjobs.amqp.connection import Connection
from brokerjobs.amqp.publisher import Publisher
from brokerjobs.message import Message
from brokerjobs.node.private import PrivateNode
from brokerjobs.settings import Settings
from brokerjobs.topology import Names
from brokerjobs.transport import Publication

BATCH = 2_000
ROUNDS = 3
WINDOW = 200
NAMES = Names()
DELAYS = {
    "no delay": 0.0,
    "1 s (1 wait)": 1.0,
    "4 s (1 wait)": 4.0,
    "3 s (2 waits)": 3.0,
    "3.5 s (3 waits)": 3.5,
}


def main() -> None:
    print(
        f"{BATCH:,} messages of 200 bytes a round, median of {ROUNDS}; broker CPU in microseconds a message"
    )
    for version in VERSIONS:
        with node(version) as running:
            asyncio.run(_measure_version(running))


async def _measure_version(running: PrivateNode) -> None:
    print(f"\nRabbitMQ {'.'.join(map(str, running.version))}")
    chosen = settings.load(url=running.url, publish_timeout=120.0)
    connection = await Connection.open(chosen, "bench")
    await declare.apply(connection, topology.shared(NAMES), chosen)
    await declare.apply(connection, topology.for_queue(NAMES, "bench", connection.capabilities), chosen)
    idle = await _idle(running.pid)
    print(f"  {'idle':<18}{idle * 1000:8.1f} ms a second")
    print(f"  {'':<18}{'publish':>8}{'all':>8}")
    for title, seconds in DELAYS.items():
        rounds = [await _round(running.pid, chosen, connection, seconds, idle) for _ in range(ROUNDS)]
        publish, everything = (statistics.median(column) for column in zip(*rounds, strict=True))
        spread = f"{min(all_ for _, all_ in rounds):.0f} to {max(all_ for _, all_ in rounds):.0f}"
        print(f"  {title:<18}{publish:8.0f}{everything:8.0f}   ({spread})")
        sys.stdout.flush()
    await connection.close()


async def _idle(pid: int) -> float:
    """CPU seconds that the broker uses per second with nothing to do."""
    before = cpu_seconds(pid)
    await asyncio.sleep(3)  # noqa: TID251
    return (cpu_seconds(pid) - before) / 3


async def _round(
    pid: int, chosen: Settings, connection: Connection, seconds: float, idle: float
) -> tuple[float, float]:
    """Microseconds a message: until all are confirmed, and until all have arrived."""
    async with connection.scratch_channel() as channel:
        await channel.queue_purge("bench")
    publisher = Publisher(chosen, "bench")
    exchange, key = topology.route_to_queue(NAMES, "bench", seconds)
    before, began = cpu_seconds(pid), time.monotonic()
    gate = asyncio.Semaphore(WINDOW)

    async def one() -> None:
        async with gate:
            message = Message(
                job="bench.job", routing_key="bench.job", body=b'{"text":"' + b"x" * 180 + b'"}'
            )
            await publisher.publish(Publication(exchange, key, message), timeout=120)

    def used() -> float:
        return (cpu_seconds(pid) - before - idle * (time.monotonic() - began)) / BATCH * 1e6

    await asyncio.gather(*(one() for _ in range(BATCH)))
    published = used()
    while (found := await declare.count(connection, "bench")) is None or found[0] < BATCH:  # noqa: ASYNC110
        await asyncio.sleep(0.1)  # noqa: TID251
    arrived = used()
    await publisher.close()
    return published, arrived


if __name__ == "__main__":
    main()
