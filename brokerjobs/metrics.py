"""Prometheus metrics: what only a worker or a publisher knows. Queue depth belongs to RabbitMQ's own exporter.

Labels are declared names only: a job that no consumer declares counts as `other`, so a stranger's messages
cannot multiply the series.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram

from brokerjobs.instruments import Lasting, Level, Merge, Tally, Timings
from brokerjobs.outcome import WORDS

OTHER = "other"
RECOGNISED = ("adopted", "absorbed")
DEATH_CAUSES = ("timeout", "memory", "exit", "SIGKILL", "SIGSEGV", "SIGABRT")  # other signals by their names
RESTART_REASONS = ("exit", "signal", "jobs", "memory", "threads", "rolling")
PUBLISH_OUTCOMES = ("confirmed", "refused", "unknown")
CONSUMER, PUBLISHER = ROLES = ("consumer", "publisher")
STATES = ("ready", "dead")
EXCEPTIONS = 50  # that are told apart: an exception's class may be made at run time
FAILURES = "brokerjobs_job_failures"

_DURATION = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600),
)
_WAIT = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 5, 10, 30, 60, 300, 600, 1800, 3600, 21600)
_CONFIRM = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ATTEMPTS = (1, 2, 3, 5, 8, 13, 21)


class Exceptions:
    """Names that failures are counted by: the first ones by themselves, all others as one."""

    def __init__(self) -> None:
        self._first: set[str] = set()

    def named(self, name: str) -> str:
        """What a failure of this name counts as; the same whenever it is asked."""
        if name not in self._first:
            if name == OTHER or len(self._first) >= EXCEPTIONS:
                return OTHER
            self._first.add(name)
        return name


class Metrics:
    """The instruments, on a registry of their own."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.exception = Exceptions().named
        self._make_those_of_jobs()
        self._make_those_of_queues()
        self._make_those_of_the_process()

    def _make_those_of_jobs(self) -> None:
        self.received = self._tally(
            "jobs_received", "Deliveries, repeated ones included.", "queue", "job_name"
        )
        self.redelivered = self._tally(
            "jobs_redelivered", "Deliveries that RabbitMQ had delivered before.", "queue"
        )
        self.finished = self._tally(
            "jobs_finished", "Attempts by how they ended.", "queue", "job_name", "outcome"
        )
        self.failures = self._tally(
            "job_failures",
            "Attempts that went wrong, by the exception's class, or by the reason where there was none.",
            *("queue", "job_name", "exception"),
        )
        self.duration = self._timings(
            "job_duration_seconds", "How long attempts ran.", _DURATION, "queue", "job_name"
        )
        self.wait = self._timings(
            "job_wait_seconds", "From when a job was due to when it started.", _WAIT, "queue"
        )
        self.attempts = self._timings(
            "job_attempts", "Attempts that jobs took until they succeeded or died.", _ATTEMPTS, "queue"
        )
        self.replayed = self._tally(
            "jobs_replayed", "First attempts of jobs that came back from a dead letter queue.", "queue"
        )
        self.in_progress = self._level("jobs_in_progress", "Jobs that run now.", "sum", "queue")
        self.oldest_start = self._level(
            "jobs_oldest_start_timestamp_seconds",
            "When the job that has run longest was started; 0 while none runs.",
            "earliest",
            "queue",
        )
        self.recognised = self._counter(
            "jobs_recognised",
            "Messages delivered again whose run was known: adopted while it ran, absorbed after it.",
            *("queue", "how"),
        )
        self.settle_failures = self._counter(
            "settle_failures",
            "Acks and nacks lost with their channel: the job will be delivered again.",
            "queue",
        )
        self.abandoned = self._counter(
            "threads_abandoned", "Threads left behind by jobs that outran their timeout.", "queue"
        )
        self.child_deaths = self._counter(
            "child_deaths", "Child processes that died under a job, by cause.", "queue", "cause"
        )

    def _make_those_of_queues(self) -> None:
        self.slots = self._level("worker_slots", "Jobs that may run at once.", "sum", "queue")
        self.paused = self._level(
            "queue_paused",
            "1 while it was paused on purpose: by an operator, or its breaker.",
            "max",
            "queue",
        )
        self.breaker = self._level(
            "breaker_open",
            "1 while the queue rests or is tried because its jobs failed one after another.",
            "max",
            "queue",
        )
        self.queue_messages = self._level(
            "queue_messages",
            "Messages ready, or dead, when RabbitMQ was last asked.",
            "max",
            "queue",
            "state",
        )
        self.queue_consumers = self._level(
            "queue_consumers", "Consumers of the queue when RabbitMQ was last asked.", "max", "queue"
        )
        self.queue_oldest_age = self._level(
            "queue_oldest_age_seconds",
            "For how long the oldest message that is ready may have waited; 0 when none is.",
            "earliest",
            "queue",
        )

    def _make_those_of_the_process(self) -> None:
        self.published = self._counter("jobs_published", "Messages published, by outcome.", "outcome")
        self.publish_duration = Histogram(
            "brokerjobs_publish_duration_seconds",
            "From when a message was sent by itself to when it was confirmed.",
            registry=self.registry,
            buckets=_CONFIRM,
        )
        self.connected = self._level(
            "broker_connected",
            "1 while connected to RabbitMQ; a publisher also until it could not connect when it was to publish.",
            "min",
            "role",
        )
        self.reconnects = self._tally("broker_reconnects", "Connections made after the first.", "role")
        self.blocked = Lasting(
            "brokerjobs_broker_blocked_seconds",
            "For how long RabbitMQ took nothing from the connection, because of an alarm.",
            ["role"],
            self.registry,
        )
        self.loop_lag = self._level(
            "event_loop_lag_seconds", "The most that the event loop was late in the last 15 s.", "max"
        )
        self.info = self._level("worker_info", "1 for each worker.", "max", "version", "python")
        self.restarts = self._counter(
            "process_restarts", "Child processes that were followed by another, by why.", "reason"
        )
        self._published = {outcome: self.published.labels(outcome) for outcome in PUBLISH_OUTCOMES}

    def prepare_worker(self, version: str) -> None:
        """Create the series that each worker has."""
        self.info.labels(version, platform.python_version()).set(1)
        self.loop_lag.labels()
        for role in ROLES:
            self.connected.labels(role).set(role == PUBLISHER)
            self.reconnects.labels(role)
            self.blocked.labels(role)

    def prepare(self, queue: str, jobs: list[str], slots: int) -> None:
        """Create the series of a queue at its start, so that rates see the first event."""
        for job in (*jobs, OTHER):
            self.received.labels(queue, job)
            self.duration.labels(queue, job)
            self.failures.labels(queue, job, OTHER)
            for outcome in WORDS:
                self.finished.labels(queue, job, outcome)
        for cause in DEATH_CAUSES:
            self.child_deaths.labels(queue, cause)
        for how in RECOGNISED:
            self.recognised.labels(queue, how)
        for own in (self.redelivered, self.replayed, self.wait, self.attempts, self.in_progress,
                    self.oldest_start, self.abandoned, self.settle_failures, self.paused, self.breaker):  # fmt: skip
            own.labels(queue)
        self.slots.labels(queue).set(slots)

    def count_published(self, outcome: str, seconds: float | None) -> None:
        """A message was confirmed, refused, or is unknown; by itself within this time, or as one of many."""
        self._published[outcome].inc()
        if seconds is not None and outcome == "confirmed":
            self.publish_duration.observe(seconds)

    # -- how each is made: all that happens with jobs by one thread, the others by any

    def _tally(self, name: str, documentation: str, *labels: str) -> Tally:
        return Tally(f"brokerjobs_{name}", documentation, labels, self.registry)

    def _timings(self, name: str, documentation: str, buckets: Sequence[float], *labels: str) -> Timings:
        return Timings(f"brokerjobs_{name}", documentation, labels, self.registry, buckets)

    def _level(self, name: str, documentation: str, merge: Merge, *labels: str) -> Level:
        return Level(f"brokerjobs_{name}", documentation, labels, self.registry, merge)

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"brokerjobs_{name}", documentation, labels, registry=self.registry)
