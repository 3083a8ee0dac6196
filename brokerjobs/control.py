"""What operators ask of running workers: pause and resume a queue, cancel a job, tell who runs what.

And what workers are told, so that their log has it: what was done with dead letters.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from brokerjobs import worker_state
from brokerjobs.amqp import control, declare, pauses
from brokerjobs.amqp.connection import LOST, Connection
from brokerjobs.amqp.control import Body, Line
from brokerjobs.errors import BrokerUnreachable, TopologyMismatch, UnknownQueue
from brokerjobs.settings import Settings
from brokerjobs.topology import CANCEL, TO_WORKERS, Names, check_word
from brokerjobs.worker_state import WorkerState

TELL_TIMEOUT = (
    3.0  # seconds; the work is done by then, and an alarm of RabbitMQ's may hold up what is published
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A job that was cancelled while a worker ran it.

    Args:
        stopped: False where it runs in a thread, which is only told.
    """

    worker: str
    queue: str
    job: str
    stopped: bool


async def pause(settings: Settings, queue: str, why: str = "") -> None:
    """Let no worker take from the queue until `resume`; what runs goes on.

    Raises:
        UnknownQueue: there is no such queue.
        AccessRefused, BrokerUnreachable, ConfigurationError: it may be paused or not; do it again.
    """
    names = Names(settings.namespace)
    told = f"{why or 'no reason given'} ({_operator()})"
    async with _line(settings) as (connection, line):
        if await declare.count(connection, names.queue(check_word(queue, "queue"))) is None:
            raise UnknownQueue(
                f"there is no queue {queue!r} at {settings.address}; `brokerjobs queues` lists them"
            )
        await pauses.put_up(connection, line, names, queue, told)
        await line.say(f"{TO_WORKERS}.pause", {"queue": queue, "why": told})


async def resume(settings: Settings, queue: str) -> bool:
    """Let workers take from the queue again; gives whether it was paused.

    Raises:
        AccessRefused, BrokerUnreachable, ConfigurationError: it may still be paused.
    """
    names = Names(settings.namespace)
    check_word(queue, "queue")
    async with _line(settings) as (connection, line):
        was_paused = await pauses.reason(connection, names, queue) is not None
        await pauses.take_down(connection, names, queue)
        await line.say(f"{TO_WORKERS}.resume", {"queue": queue})
    return was_paused


async def cancel(settings: Settings, id: str, *, wait: float) -> list[Found]:
    """Cancel a job wherever it is: it is stopped if it runs, and dead-lettered when it is delivered.

    Args:
        id: of the job.
        wait: seconds for workers to say that they run it.

    Returns:
        Where it ran.

    Raises:
        AccessRefused, BrokerUnreachable, ConfigurationError: it is not cancelled.
    """
    async with _line(settings) as (_, line):
        await line.say(CANCEL, {"id": id, "at": time.time_ns() // 1_000_000}, must_arrive=True)
        return [found async for body in line.replies(wait) if (found := _found(body)) is not None]


async def workers(settings: Settings, *, wait: float) -> list[WorkerState]:
    """The workers of the namespace that answer within some seconds."""
    async with _line(settings) as (_, line):
        await line.say(f"{TO_WORKERS}.ping", {})
        found = [state async for body in line.replies(wait) if (state := worker_state.read(body)) is not None]
    return sorted(found, key=lambda state: state.worker)


async def tell_handled(settings: Settings, queue: str, done: str, count: int) -> None:
    """Let the workers of a queue log what was done with its dead letters.

    Args:
        settings: where.
        queue: as users say it.
        done: `replayed` or `dropped`.
        count: how many were.

    Raises:
        AccessRefused, BrokerUnreachable, ConfigurationError: they may not have heard of it.
    """
    told = {"queue": queue, "done": done, "count": count, "by": _operator()}
    try:
        async with asyncio.timeout(TELL_TIMEOUT), _line(settings) as (_, line):
            await line.say(f"{TO_WORKERS}.handled", told)
    except TopologyMismatch:
        return  # without a control exchange nobody listens
    except TimeoutError:
        raise BrokerUnreachable(f"RabbitMQ at {settings.address} did not answer in time") from None


def _operator() -> str:
    """Who asks, for people to read."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number that has no name
        user = f"user {os.getuid()}"
    return f"{user} on {socket.gethostname()}"


@asynccontextmanager
async def _line(settings: Settings) -> AsyncIterator[tuple[Connection, Line]]:
    connection = await Connection.open(settings, "control")
    try:
        async with control.line(connection, Names(settings.namespace), settings) as line:
            yield connection, line
    except LOST as error:
        raise BrokerUnreachable(
            f"the connection to RabbitMQ at {settings.address} was lost: {error}; do it again"
        ) from None
    finally:
        await connection.close()


def _found(body: Body) -> Found | None:
    """None where a stranger answers: anybody who may publish there can."""
    with suppress(KeyError, TypeError):
        return Found(**{name: body[name] for name in ("worker", "queue", "job", "stopped")})
    return None
