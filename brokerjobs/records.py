"""What a worker records of each attempt: its metrics, and one log line."""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import Any

from brokerjobs.failure import cut
from brokerjobs.instruments import Number
from brokerjobs.logs import hears_info, log, shows_arguments
from brokerjobs.message import Message
from brokerjobs.metrics import OTHER, Metrics
from brokerjobs.outcome import DeadLettered, Outcome, Released, Retried, Succeeded, word
from brokerjobs.worker_state import ERROR_LIMIT, FAILURES, RecentFailure

MOST_OF_ARGUMENTS = 1_000  # bytes in a line


class _Job:
    """The series that each of its jobs adds to."""

    __slots__ = ("durations", "received", "succeeded")

    def __init__(self, metrics: Metrics, queue: str, name: str) -> None:
        self.received = metrics.received.labels(queue, name)
        self.succeeded = metrics.finished.labels(queue, name, word(Succeeded()))
        self.durations = metrics.duration.labels(queue, name)


class Records:
    """Those of one queue. Series are looked up once: that costs more than to count.

    Args:
        queue: as users say it.
        metrics: where they are counted.
    """

    def __init__(self, queue: str, metrics: Metrics) -> None:
        self._queue = queue
        self._metrics = metrics
        self._wait = metrics.wait.labels(queue)
        self._attempts = metrics.attempts.labels(queue)
        self._redelivered = metrics.redelivered.labels(queue)
        self._replayed = metrics.replayed.labels(queue)
        self.due = 0.0  # when the message was, seconds since the epoch, that was started last
        self.began_at = 0.0  # when it was started, likewise
        self.failures = deque[RecentFailure](maxlen=FAILURES)
        self._jobs: dict[str, _Job] = {}
        self._finished: dict[tuple[str, str], Number] = {}
        self._log = log.bind(queue=queue)

    def received(self, job: str) -> None:
        """A delivery came."""
        self._job(job).received.value += 1

    def _job(self, name: str) -> _Job:
        if (job := self._jobs.get(name)) is None:
            job = self._jobs[name] = _Job(self._metrics, self._queue, name)
            self._finished[name, word(Succeeded())] = job.succeeded
        return job

    def came_again(self) -> None:
        """A delivery came that RabbitMQ had delivered before."""
        self._redelivered.value += 1

    def began(self, message: Message, job: str, at: float) -> None:
        """A delivery came, and is run.

        Args:
            message: what it brought.
            job: as metrics name it.
            at: when, seconds since the epoch.
        """
        series = self._jobs.get(job) or self._job(job)
        series.received.value += 1
        due = self.due = message.ready_at
        self.began_at = at
        self._wait.observe(at - due if at > due else 0.0)
        if message.generation and not message.first_at:
            self._replayed.value += 1

    def finished(
        self, message: Message, outcome: Outcome, *, job: str = OTHER, duration: float | None = None
    ) -> None:
        """An attempt ended like this.

        Args:
            message: what it ran.
            outcome: how it ended.
            job: as metrics name it.
            duration: seconds; None when nothing ran.
        """
        series = self._jobs.get(job) or self._job(job)
        if duration is not None:
            series.durations.observe(duration)
        if isinstance(outcome, Succeeded):
            series.succeeded.value += 1
            if message.attempt == 1:  # as nearly all
                self._attempts.counts[0] += 1
                self._attempts.sum += 1
            else:
                self._attempts.observe(message.attempt)
            if not hears_info():
                return
        else:
            self._failed(message, outcome, job)
        self._say(message, outcome, duration or 0.0)

    def _failed(self, message: Message, outcome: Retried | DeadLettered | Released, job: str) -> None:
        how = word(outcome)
        if (series := self._finished.get((job, how))) is None:
            series = self._finished[job, how] = self._metrics.finished.labels(self._queue, job, how)
        series.value += 1
        if isinstance(outcome, Released):
            return
        if outcome.failure is not None:
            exception = self._metrics.exception(outcome.failure.kind or outcome.reason)
            self._metrics.failures.labels(self._queue, job, exception).inc()
            self._remember(message, how, str(outcome.failure) or outcome.reason)
        if isinstance(outcome, DeadLettered):
            self._attempts.observe(message.attempt)

    @property
    def counts(self) -> tuple[int, dict[str, int]]:
        """What was received, and what was finished by outcome."""
        finished: Counter[str] = Counter()
        for (_, how), series in self._finished.items():
            finished[how] += int(series.value)
        return sum(int(job.received.value) for job in self._jobs.values()), dict(finished)

    def recognised(self, how: str, job: str) -> None:
        """What came was known: `adopted` or `absorbed`."""
        self.received(job)
        self._metrics.recognised.labels(self._queue, how).inc()

    def settlement_lost(self, message: Message, outcome: Outcome, error: BaseException) -> None:
        """It could not be acknowledged."""
        self._metrics.settle_failures.labels(self._queue).inc()
        log.warning(
            "settlement lost", queue=self._queue, job=message.job, id=message.id, attempt=message.attempt,
            outcome=word(outcome), error=str(error), hint="it will be delivered again",
        )  # fmt: skip

    def _say(self, message: Message, outcome: Outcome, duration: float) -> None:
        fields: dict[str, Any] = {
            "job": message.job,
            "id": message.id,
            "attempt": message.attempt,
            "outcome": word(outcome),
            "duration": round(duration, 4),
        }
        if shows_arguments():
            fields["arguments"] = cut(message.body.decode(errors="replace"), MOST_OF_ARGUMENTS)
        match outcome:
            case Retried():
                self._log.warning("job retried", **fields, delay=round(outcome.delay, 3), reason=outcome.reason,
                            error=str(outcome.failure or ""))  # fmt: skip
            case DeadLettered():
                self._log.error("job dead", **fields, reason=outcome.reason, error=str(outcome.failure))
            case Released():
                self._log.warning("job released", **fields, reason=outcome.reason)
            case _:
                self._log.info("job succeeded", **fields)

    def _remember(self, message: Message, outcome: str, error: str) -> None:
        self.failures.append(
            RecentFailure(
                at=time.time(),
                queue=self._queue,
                job=message.job,
                id=message.id,
                attempt=message.attempt,
                outcome=outcome,
                error=cut(error, ERROR_LIMIT),
            )
        )
