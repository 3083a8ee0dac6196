"""What operators ask of a worker while it runs: pause, resume, cancel, and who runs what.

Pauses and cancellations outlive the worker: a pause is a mark in the broker, cancellations are in a stream. Both are
read when a session begins; what is asked meanwhile comes over the control exchange.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from brokerjobs.amqp import control, pauses
from brokerjobs.amqp.connection import LOST
from brokerjobs.amqp.control import Body, Command, note
from brokerjobs.amqp.session import Session
from brokerjobs.amqp.settlement import history
from brokerjobs.errors import AccessRefused, BrokerJobsError
from brokerjobs.failure import cut
from brokerjobs.lane import Lane
from brokerjobs.logs import log
from brokerjobs.message import SHORT_LIMIT, Message
from brokerjobs.process_name import process_name
from brokerjobs.settings import Settings
from brokerjobs.topology import Names
from brokerjobs.transport import AsyncPublisher, Publication
from brokerjobs.worker_state import FAILURES, OPERATOR, RecentFailure

REMEMBERED = 100_000  # cancellations
MOST_OF_NAME = 200  # bytes
MOST_ANSWERS = 100  # at once; a flood of questions must not hold up retries
REPLY_TIMEOUT = 5.0  # seconds; who asked does not wait longer


class Cancellations:
    """The ids that operators have cancelled, and when."""

    def __init__(self) -> None:
        self._at: dict[str, int] = {}

    def add(self, body: Body) -> None:
        id, at = body.get("id"), body.get("at")
        if isinstance(id, str) and isinstance(at, int) and len(id) <= SHORT_LIMIT:
            self._at[id] = max(at, self._at.pop(id, 0))
            if len(self._at) > REMEMBERED:
                del self._at[next(iter(self._at))]

    def cover(self, message: Message, sent_at: Callable[[], float]) -> bool:
        """Whether the message was sent, or replayed, before its id was cancelled.

        Args:
            message: that is about to run.
            sent_at: gives when it was sent, seconds since the epoch; 0 where nobody knows.
        """
        at = self._at.get(message.id)
        if at is None:
            return False
        replays = [entry.at for entry in history(message) if entry.replay]
        return max([sent_at(), *replays]) * 1000 <= at


class Remote:
    """Obeys what comes over the control exchange.

    Args:
        settings: of the worker.
        lanes: its queues.
        publisher: confirms its answers.
    """

    def __init__(self, settings: Settings, lanes: Sequence[Lane], publisher: AsyncPublisher) -> None:
        self._settings = settings
        self._names = Names(settings.namespace)
        self._lanes = lanes
        self._publisher = publisher
        self._since = time.time()
        self._next_offset = 0
        self._told: Counter[str] = Counter()
        self._answers: set[asyncio.Task[None]] = set()
        self._cancellations = Cancellations()
        for lane in lanes:
            lane.is_cancelled = self._cancellations.cover

    async def begin(self, session: Session) -> None:
        """Hear commands, and learn what was asked before; a worker that may not goes on without.

        Raises:
            ConnectionLost: worth another try.
        """
        connection = session.connection
        try:
            await control.listen(connection, self._names, self._settings, self._obey)
            found, self._next_offset = await control.cancellations(
                connection, self._names, self._settings, self._publisher, self._next_offset
            )
            for body in found:
                self._cancellations.add(body)
                for lane in self._lanes:  # it went on while nobody could tell it
                    lane.cancel(str(body.get("id")))
        except BrokerJobsError as error:
            log.warning(
                "no remote control", error=str(error), hint="pause, cancel and workers will not reach it"
            )
        await self.look_for_pauses(session)

    async def look_for_pauses(self, session: Session) -> None:
        """Pause and resume as the marks in the broker say."""
        for lane in self._lanes:
            told = self._told[lane.queue]
            try:
                why = await pauses.reason(session.connection, self._names, lane.queue)
            except AccessRefused:
                continue  # the user may not look there; said above
            if told != self._told[lane.queue]:
                continue  # a command came meanwhile, and knows better
            if why is None:
                lane.gate.resume(OPERATOR)
            else:
                lane.gate.pause(OPERATOR, why)

    def _obey(self, command: Command) -> None:
        match command.verb:
            case "pause":
                self._pause(command.body)
            case "resume":
                self._resume(command.body)
            case "cancel":
                self._cancel(command)
            case "ping":
                self._answer(command, self._state())
            case "handled":
                self._note_handled(command.body)

    def _pause(self, body: Body) -> None:
        for lane in self._lanes:
            if lane.queue == body.get("queue"):
                self._told[lane.queue] += 1
                lane.gate.pause(OPERATOR, str(body.get("why") or "an operator paused it"))

    def _resume(self, body: Body) -> None:
        for lane in self._lanes:
            if lane.queue == body.get("queue"):
                self._told[lane.queue] += 1
                lane.gate.resume(OPERATOR)

    def _cancel(self, command: Command) -> None:
        self._cancellations.add(command.body)
        for lane in self._lanes:
            for found in lane.cancel(str(command.body.get("id"))):
                self._answer(command, {**found, "worker": process_name()})

    def _note_handled(self, body: Body) -> None:
        """The program that did it is gone by now, and its terminal perhaps too."""
        count, by = body.get("count"), cut(str(body.get("by") or "an operator"), MOST_OF_NAME)
        for lane in self._lanes:
            if lane.queue == body.get("queue") and isinstance(count, int):
                if body.get("done") == "replayed":
                    log.info("dead letters replayed", queue=lane.queue, count=count, by=by)
                elif body.get("done") == "dropped":
                    log.info("dead letters dropped", queue=lane.queue, count=count, by=by)

    def _state(self) -> dict[str, Any]:
        return {
            "worker": process_name(),
            "queues": [lane.queue for lane in self._lanes],
            "since": self._since,
            "paused": {lane.queue: dict(lane.gate.pauses) for lane in self._lanes if lane.gate.is_paused},
            "running": [job for lane in self._lanes for job in lane.jobs],
            "work": {lane.queue: asdict(lane.work) for lane in self._lanes},
            "failures": [asdict(failure) for failure in self._failures()],
        }

    def _failures(self) -> list[RecentFailure]:
        """The last of all queues: what is told must not grow with how many those are."""
        found = (failure for lane in self._lanes for failure in lane.failures)
        return sorted(found, key=lambda failure: failure.at)[-FAILURES:]

    def _answer(self, command: Command, body: dict[str, Any]) -> None:
        if command.reply_to and len(self._answers) < MOST_ANSWERS:
            task = asyncio.create_task(self._publish(command.reply_to, body))
            self._answers.add(task)
            task.add_done_callback(self._answers.discard)

    async def _publish(self, key: str, body: dict[str, Any]) -> None:
        with suppress(BrokerJobsError, *LOST):  # who asked has gone by now
            await self._publisher.publish(
                Publication(self._names.control, key, note(key, body)), timeout=REPLY_TIMEOUT
            )
