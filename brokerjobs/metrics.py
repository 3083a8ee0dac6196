"""Prometheus metrics: what only a worker or a publisher knows. Queue depth belongs to RabbitMQ's own exporter.

Labels are declared names only: a job that no consumer declares counts as `other`, so a stranger's messages
cannot multiply the series.
"""

from __future__ import annotations

from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from brokerjobs.errors import ConfigurationError
from brokerjobs.instruments import Level, Tally, Timings
from brokerjobs.outcome import WORDS

OTHER = "other"
RECOGNISED = ("adopted", "absorbed")
DEATH_CAUSES = ("timeout", "memory", "exit", "SIGKILL", "SIGSEGV", "SIGABRT")  # other signals by their names
RESTART_REASONS = ("exit", "signal", "jobs", "memory", "threads", "rolling")
PUBLISH_OUTCOMES = ("confirmed", "refused", "unknown")
_DURATION = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
    60,
    120,
    300,
    600,
    1800,
    3600,
)
_WAIT = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 5, 10, 30, 60, 300, 600, 1800, 3600, 21600)


class Metrics:
    """The instruments, on a registry of their own."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.received = Tally(
            "brokerjobs_jobs_received",
            "Deliveries, repeated ones included.",
            ["queue", "job"],
            self.registry,
        )
        self.finished = Tally(
            "brokerjobs_jobs_finished",
            "Attempts by how they ended.",
            ["queue", "job", "outcome"],
            self.registry,
        )
        self.duration = Timings(
            "brokerjobs_job_duration_seconds",
            "How long attempts ran.",
            ["queue", "job"],
            self.registry,
            _DURATION,
        )
        self.wait = Timings(
            "brokerjobs_job_wait_seconds",
            "From when a job was due to when it started.",
            ["queue"],
            self.registry,
            _WAIT,
        )
        self.in_progress = Level(
            "brokerjobs_jobs_in_progress", "Jobs that run now.", ["queue"], self.registry
        )
        self.slots = Gauge(
            "brokerjobs_worker_slots",
            "Jobs that may run at once.",
            ["queue"],
            registry=self.registry,
        )
        self.abandoned = Counter(
            "brokerjobs_threads_abandoned", "Threads left behind by jobs that outran their timeout.", ["queue"],
            registry=self.registry,
        )  # fmt: skip
        self.child_deaths = Counter(
            "brokerjobs_child_deaths", "Child processes that died under a job, by cause.", ["queue", "cause"],
            registry=self.registry,
        )  # fmt: skip
        self.published = Counter(
            "brokerjobs_jobs_published",
            "Messages published, by outcome.",
            ["outcome"],
            registry=self.registry,
        )
        self.recognised = Counter(
            "brokerjobs_jobs_recognised",
            "Messages delivered again whose run was known: adopted while it ran, absorbed after it.",
            ["queue", "how"],
            registry=self.registry,
        )
        self.paused = Gauge(
            "brokerjobs_queue_paused",
            "1 while this worker takes nothing from the queue.",
            ["queue"],
            registry=self.registry,
        )
        self.breaker = Gauge(
            "brokerjobs_breaker_open",
            "1 while the queue rests or is tried because its jobs failed one after another.",
            ["queue"],
            registry=self.registry,
        )
        self.settle_failures = Counter(
            "brokerjobs_settle_failures",
            "Acks and nacks lost with their channel: the job will be delivered again.",
            ["queue"],
            registry=self.registry,
        )
        self.connected = Gauge(
            "brokerjobs_broker_connected",
            "1 while connected to RabbitMQ.",
            ["role"],
            registry=self.registry,
        )
        self.restarts = Counter(
            "brokerjobs_process_restarts",
            "Child processes that were followed by another, by why.",
            ["reason"],
            registry=self.registry,
        )
        for outcome in PUBLISH_OUTCOMES:
            self.published.labels(outcome)

    def prepare(self, queue: str, jobs: list[str], slots: int) -> None:
        """Create the series of a queue at its start, so that rates see the first event."""
        for job in (*jobs, OTHER):
            self.received.labels(queue, job)
            self.duration.labels(queue, job)
            for outcome in WORDS:
                self.finished.labels(queue, job, outcome)
        self.wait.labels(queue)
        self.in_progress.labels(queue)
        self.abandoned.labels(queue)
        for cause in DEATH_CAUSES:
            self.child_deaths.labels(queue, cause)
        self.settle_failures.labels(queue)
        self.paused.labels(queue)
        self.breaker.labels(queue)
        for how in RECOGNISED:
            self.recognised.labels(queue, how)
        self.slots.labels(queue).set(slots)

    def serve(self, host: str, port: int) -> WSGIServer:
        """Serve `/metrics`.

        Raises:
            ConfigurationError: when the port is taken or not ours to use.
        """
        return serve(self.registry, host, port)


def serve(registry: CollectorRegistry, host: str, port: int) -> WSGIServer:
    """Serve `/metrics` of a registry.

    Raises:
        ConfigurationError: when the port is taken or not ours to use.
    """
    try:
        server, _ = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise ConfigurationError(
            f"metrics cannot be served on {host}:{port}: {error.strerror}; choose another --metrics-port"
        ) from None
    return server
