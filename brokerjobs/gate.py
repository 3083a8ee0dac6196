"""Whether a worker may start jobs of a queue: who has paused it, and its circuit breaker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from brokerjobs.breaker import Breaker, Circuit
from brokerjobs.logs import log
from brokerjobs.metrics import Metrics
from brokerjobs.outcome import DeadLettered, Outcome, Retried, Succeeded
from brokerjobs.worker_state import OPERATOR

SHORT_REST = 60.0  # seconds
BREAKER = "breaker"  # who pauses a queue whose jobs fail one after another
BROKER = "broker"  # who pauses a queue that RabbitMQ has taken from this worker
ON_PURPOSE = (OPERATOR, BREAKER)  # who pauses a queue so that it rests


class Gate:
    """Open while nobody pauses the queue; whoever has paused it must resume it.

    Args:
        queue: for log and metrics.
        breaker: when to rest because jobs fail one after another; None for never.
        metrics: where it shows.
        opened: called when the last pause has ended.
    """

    def __init__(
        self, queue: str, breaker: Breaker | None, metrics: Metrics, opened: Callable[[], None]
    ) -> None:
        self._queue = queue
        self._metrics = metrics
        self._opened = opened
        self._circuit = Circuit(breaker)
        self._probe: asyncio.Task[None] | None = None
        self._pauses: dict[str, str] = {}
        self.changed = asyncio.Event()

    @property
    def is_paused(self) -> bool:
        return bool(self._pauses)

    @property
    def is_shut(self) -> bool:
        """Whether the worker stops consuming too: what it holds would only grow old. A short rest keeps it."""
        return BROKER in self._pauses or self.is_shut_here

    @property
    def is_shut_here(self) -> bool:
        """Whether it would be so even if RabbitMQ had not taken the queue."""
        return any(who != BROKER and (who != BREAKER or not self._rests_shortly) for who in self._pauses)

    @property
    def _rests_shortly(self) -> bool:
        breaker = self._circuit.breaker
        return breaker is not None and breaker.rest_seconds <= SHORT_REST

    @property
    def lets_start(self) -> bool:
        return not self._pauses and self._probe is None

    @property
    def pauses(self) -> Mapping[str, str]:
        """Who has paused the queue, and why."""
        return self._pauses

    def pause(self, who: str, why: str) -> None:
        """Let nothing start until that same one resumes; the worker stops consuming meanwhile."""
        if who not in self._pauses:
            log.warning("queue paused", queue=self._queue, by=who, reason=why)
            self._pauses[who] = why
            self._tell()
        self._pauses[who] = why  # a look may have met the mark before it held the reason

    def resume(self, who: str) -> None:
        """End the pause of that one, if there is one."""
        if self._pauses.pop(who, None) is not None:
            log.info("queue resumed", queue=self._queue, by=who, paused=bool(self._pauses))
            self._tell()
            if not self._pauses:
                self._opened()

    def _tell(self) -> None:
        self._metrics.paused.labels(self._queue).set(any(who in ON_PURPOSE for who in self._pauses))
        self.changed.set()

    # -- the circuit breaker

    def began(self, task: asyncio.Task[None]) -> None:
        """A job has started; while the circuit probes, no other starts before it has ended."""
        if self._circuit.state == "probing":
            self._probe = task

    def ended(self, task: asyncio.Task[None]) -> None:
        if task is self._probe:
            self._probe = None

    def heed(self, outcome: Outcome) -> None:
        """Take in how the attempt of the current task ended; while the circuit probes, only the probe counts."""
        circuit = self._circuit
        if circuit.breaker is None or (
            circuit.state == "probing" and asyncio.current_task() is not self._probe
        ):
            return
        match outcome:
            case Succeeded():
                failed = False
            case Retried(reason="failed" | "crashed"):
                failed = True
            case DeadLettered(reason="exhausted" | "failed" | "crashed"):
                failed = True
            case _:
                return
        if circuit.record(failed=failed, now=time.monotonic()) and circuit.state == "open":
            rest = circuit.breaker.rest_seconds
            self.pause(BREAKER, f"{circuit.breaker}; one job is tried in {rest:g} s")
            asyncio.get_running_loop().call_later(rest, self._try_one)
        self._metrics.breaker.labels(self._queue).set(circuit.state != "closed")

    def _try_one(self) -> None:
        self._circuit.probe()
        self.resume(BREAKER)
