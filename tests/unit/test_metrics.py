from __future__ import annotations

import socket
import urllib.request
from collections import Counter

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from brokerjobs.errors import ConfigurationError
from brokerjobs.metrics import OTHER, PUBLISH_OUTCOMES, Metrics
from brokerjobs.outcome import WORDS

LABELS = {"queue", "job", "outcome", "exception", "role", "how", "cause", "le"}


def series(metrics: Metrics) -> list[tuple[str, dict[str, str], float]]:
    return [
        (sample.name, sample.labels, sample.value)
        for family in metrics.registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    ]


def test_series_of_a_queue_exist_from_its_start() -> None:
    """A counter that appears with its first event hides that event from every rate."""
    metrics = Metrics()

    metrics.prepare("emails", ["emails.welcome"], 10)

    found = {(name, tuple(sorted(labels.items()))): value for name, labels, value in series(metrics)}
    for job in "emails.welcome", OTHER:
        assert found["brokerjobs_jobs_received_total", (("job", job), ("queue", "emails"))] == 0
        for outcome in WORDS:
            key = (("job", job), ("outcome", outcome), ("queue", "emails"))
            assert found["brokerjobs_jobs_finished_total", key] == 0
    for outcome in PUBLISH_OUTCOMES:
        assert found["brokerjobs_jobs_published_total", (("outcome", outcome),)] == 0
    assert found["brokerjobs_worker_slots", (("queue", "emails"),)] == 10


def test_preparing_again_counts_nothing_anew() -> None:
    metrics = Metrics()
    metrics.prepare("emails", ["emails.welcome"], 10)
    metrics.received.labels("emails", "emails.welcome").inc()
    before = series(metrics)

    metrics.prepare("emails", ["emails.welcome"], 10)

    assert series(metrics) == before


def test_labels_are_few_and_of_bounded_values() -> None:
    metrics = Metrics()

    metrics.prepare("emails", ["emails.welcome", "emails.receipt"], 10)

    found = series(metrics)
    assert {label for _, labels, _ in found for label in labels} <= LABELS
    assert {labels["job"] for _, labels, _ in found if "job" in labels} == {
        "emails.welcome",
        "emails.receipt",
        OTHER,
    }
    assert {labels["outcome"] for _, labels, _ in found if "outcome" in labels} == {*WORDS, *PUBLISH_OUTCOMES}


def test_series_grow_with_declared_jobs_alone() -> None:
    def count(jobs: int) -> int:
        metrics = Metrics()
        metrics.prepare("emails", [f"emails.{n}" for n in range(jobs)], 10)
        return len(series(metrics))

    per_job = count(2) - count(1)

    assert count(10) == count(1) + 9 * per_job
    assert per_job < 40


def test_names_say_what_is_counted_and_in_what() -> None:
    metrics = Metrics()

    for family in metrics.registry.collect():
        assert family.name.startswith("brokerjobs_")
        assert family.documentation.endswith(".")
        if family.type == "histogram":
            assert family.name.endswith(("_seconds", "_attempts"))


def test_buckets_reach_from_milliseconds_to_the_longest_timeouts() -> None:
    metrics = Metrics()
    for seconds in (0.001, 0.3, 45, 550, 3000):
        metrics.duration.labels("emails", "emails.welcome").observe(seconds)

    values = [value for name, _, value in series(metrics) if name == "brokerjobs_job_duration_seconds_bucket"]

    assert values == sorted(values)
    assert len(set(values)) == 5
    assert values[-1] == values[-2] == 5  # none beyond the last finite bucket


def test_each_has_a_registry_of_its_own_unless_given_one() -> None:
    registry = CollectorRegistry()

    assert Metrics().registry is not Metrics().registry
    assert Metrics(registry).registry is registry


def test_page_is_what_prometheus_reads() -> None:
    metrics = Metrics()
    metrics.prepare("emails", ["emails.welcome"], 10)
    metrics.finished.labels("emails", "emails.welcome", "succeeded").inc(3)
    server = metrics.serve("127.0.0.1", 0)
    try:
        host, port = server.server_address[:2]
        with urllib.request.urlopen(f"http://{host!s}:{port}/metrics", timeout=10) as answer:
            page = answer.read().decode()
    finally:
        server.shutdown()
        server.server_close()

    families = {family.name: family for family in text_string_to_metric_families(page)}
    succeeded = Counter(
        {
            s.labels["outcome"]: s.value
            for s in families["brokerjobs_jobs_finished"].samples
            if s.labels["job"] != OTHER
        }
    )
    assert succeeded["succeeded"] == 3


def test_taken_port_is_refused_with_a_way_out() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(
            ConfigurationError, match=rf"127\.0\.0\.1:{port}: Address already in use.*--metrics-port"
        ):
            Metrics().serve("127.0.0.1", port)
