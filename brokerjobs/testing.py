"""Test your jobs without a broker.

    from brokerjobs.testing import run

    def test_welcome_is_sent():
        ran = run(welcome.message(user_id=7))

        assert isinstance(ran.outcome, Succeeded)
        assert [message.job for message in ran.sent] == ["emails.receipt"]

The message goes through everything that a worker does with it: encoding and decoding, validation, middleware,
hooks, timeout, the retry decision. Only RabbitMQ is missing: what the job sends is recorded, waits are not waited.
Isolated jobs run here too, so nothing of theirs is killed or bounded.
A job is a plain function too: `welcome(7)` just calls it.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from brokerjobs.amqp.settlement import next_attempt
from brokerjobs.consumer import Consumer, living
from brokerjobs.errors import ConfigurationError
from brokerjobs.executor import Executor, Threads
from brokerjobs.failure import Failure
from brokerjobs.message import Message, decode
from brokerjobs.outcome import DeadLettered, Outcome, Released, Retried, Succeeded
from brokerjobs.topology import Names
from brokerjobs.transport import JobHandle, use_sender

__all__ = [
    "DeadLettered",
    "Ran",
    "Recorder",
    "Released",
    "Retried",
    "Succeeded",
    "arun",
    "drain",
    "recording",
    "run",
]


@dataclass(frozen=True, slots=True)
class Ran:
    """One attempt.

    Args:
        message: what ran.
        outcome: how it ended: Succeeded, Retried, DeadLettered or Released.
        sent: the messages that the job sent meanwhile.
    """

    message: Message
    outcome: Outcome
    sent: list[Message] = field(default_factory=list)

    @property
    def result(self) -> Any:
        """What the job returned; None unless it succeeded."""
        return self.outcome.result if isinstance(self.outcome, Succeeded) else None

    @property
    def failure(self) -> Failure | None:
        """What went wrong, if anything did."""
        return self.outcome.failure if isinstance(self.outcome, Retried | DeadLettered) else None

    @property
    def retry_in(self) -> float | None:
        """Seconds until the next attempt; None unless it is retried."""
        return self.outcome.delay if isinstance(self.outcome, Retried) else None


class Recorder:
    """A sender that keeps messages instead of publishing them."""

    def __init__(self) -> None:
        self.sent: list[Message] = []

    def send_message(self, message: Message) -> JobHandle:
        self.sent.append(message)
        return JobHandle(message.id, message.job)

    async def asend_message(self, message: Message) -> JobHandle:
        return self.send_message(message)

    def send_many(self, messages: Iterable[Message]) -> list[JobHandle]:
        return [self.send_message(message) for message in messages]

    async def asend_many(self, messages: Iterable[Message]) -> list[JobHandle]:
        return self.send_many(messages)


@contextmanager
def recording() -> Iterator[list[Message]]:
    """Within the block, sends are recorded in the list it gives, and nothing is published."""
    recorder = Recorder()
    before = use_sender(recorder)
    try:
        yield recorder.sent
    finally:
        use_sender(before)


def run(message: Message, consumer: Consumer | None = None) -> Ran:
    """Run one attempt of a message; from ordinary test functions.

    Args:
        message: made by `job.message(…)` or by hand.
        consumer: whose job it is; found by the job's name when None.

    Raises:
        ConfigurationError: no consumer, or more than one, declares the job.
    """
    return asyncio.run(arun(message, consumer))


async def arun(message: Message, consumer: Consumer | None = None) -> Ran:
    """Run one attempt of a message; from async test functions."""
    owner = consumer or _owner(message)
    arrived = decode(message.properties(), message.body, routing_key=message.routing_key)
    decided: list[Outcome] = []
    threads = Threads(1)
    try:
        with recording() as sent:
            outcome = await Executor(owner, threads).execute(arrived, decide=decided.append)
    finally:
        threads.close()
    return Ran(arrived, decided[0] if decided else outcome, sent)


def drain(*messages: Message, most: int = 1000) -> list[Ran]:
    """Run messages, their retries, and all that they send, until nothing is left; no wait is waited.

    Args:
        messages: where to begin.
        most: attempts after which it gives up, lest two jobs that send each other run for ever.

    Raises:
        ConfigurationError: a job is not declared, or there are more attempts than `most`.
    """
    waiting = deque(messages)
    done: list[Ran] = []
    while waiting:
        if len(done) >= most:
            raise ConfigurationError(f"more than {most} attempts: do jobs send each other for ever?")
        ran = run(waiting.popleft())
        done.append(ran)
        waiting.extend(ran.sent)
        if isinstance(ran.outcome, Retried):
            queue = _owner(ran.message).queue
            waiting.append(next_attempt(ran.message, ran.outcome, queue, Names()).message)
    return done


def _owner(message: Message) -> Consumer:
    owners = _owners(message)
    if len(owners) > 1:
        gc.collect()  # consumers that earlier tests declared and dropped
        owners = _owners(message)
    if len(owners) > 1:
        # Workers find consumers in modules only, so one there goes before one inside a test function.
        owners = [owner for owner in owners if _is_in_a_module(owner)] or owners
    if len(owners) == 1:
        return owners[0]
    if not owners:
        raise ConfigurationError(
            f"no consumer declares {message.job!r}; import its module, or give consumer="
        )
    queues = ", ".join(sorted(owner.queue for owner in owners))
    raise ConfigurationError(f"several consumers take {message.job!r} ({queues}): say which with consumer=")


def _owners(message: Message) -> list[Consumer]:
    takers = [consumer for consumer in living() if consumer.find(message) is not None]
    # Others may take it by a pattern, as an event; it is the job of the queue that it is named after.
    return [taker for taker in takers if taker.queue == message.job.partition(".")[0]] or takers


def _is_in_a_module(consumer: Consumer) -> bool:
    return any(value is consumer for module in list(sys.modules.values()) for value in vars(module).values())
