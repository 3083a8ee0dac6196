"""What RabbitMQ tells of a worker's queues by AMQP alone: it needs no plugin, and no right but to consume them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from brokerjobs.amqp import declare
from brokerjobs.amqp.session import Session
from brokerjobs.lane import Lane
from brokerjobs.metrics import Metrics
from brokerjobs.topology import Names


class QueueLooks:
    """Of all looks of one worker; they outlast its sessions.

    Args:
        names: of queues.
        lanes: of the worker.
        metrics: where it shows what was found.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        names: Names,
        lanes: Sequence[Lane],
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._names = names
        self._lanes = lanes
        self._metrics = metrics
        self._clock = clock
        self._ready: dict[str, int] = {}
        self._since: dict[str, float] = {}  # when the queue was seen empty last, or looked at first

    async def look(self, session: Session) -> None:
        """Ask how much there is; what cannot be known now is not told.

        Raises:
            AccessRefused: the user may not know of the dead letter queues; the others were asked before.
            ConnectionLost: worth another try.
        """
        work = {self._names.queue(lane.queue): lane for lane in self._lanes}
        dead = {self._names.dead(lane.queue): lane.queue for lane in self._lanes}
        try:
            for name, found in (await declare.counts(session.connection, work)).items():
                self._note(work[name], *(found or (0, 0)))
        except Exception:
            self.forget()
            raise
        try:
            for name, found in (await declare.counts(session.connection, dead)).items():
                self._metrics.queue_messages.labels(dead[name], "dead").set(found[0] if found else 0)
        except Exception:
            self._forget_dead()
            raise

    def forget(self) -> None:
        """Tell nothing until the next look: old figures would stand for those of today, in other workers' place too."""
        for lane in self._lanes:
            self._metrics.queue_messages.forget(lane.queue, "ready")
            self._metrics.queue_consumers.forget(lane.queue)
            self._metrics.queue_oldest_age.forget(lane.queue)
        self._forget_dead()

    def _forget_dead(self) -> None:
        for lane in self._lanes:
            self._metrics.queue_messages.forget(lane.queue, "dead")

    def _note(self, lane: Lane, ready: int, consumers: int) -> None:
        queue = lane.queue
        if queue not in self._since or not ready:
            self._since[queue] = self._clock()
        self._ready[queue] = ready
        self._metrics.queue_oldest_age.follow(partial(self._oldest_age, lane), queue)
        self._metrics.queue_messages.labels(queue, "ready").set(ready)
        self._metrics.queue_consumers.labels(queue).set(consumers)

    def _oldest_age(self, lane: Lane) -> float:
        """What is ready came after what was started last, and after the queue was empty: it cannot be older.

        But it can where its priority is lower, or where it was given back: RabbitMQ tells nobody how old a message is.
        """
        if not self._ready[lane.queue]:
            return 0.0
        return max(0.0, self._clock() - max(lane.due, self._since[lane.queue]))
