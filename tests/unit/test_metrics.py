from __future__ import annotations

import platform

import pytest
from prometheus_client import CollectorRegistry

from brokerjobs.connection_record import ConnectionRecord
from brokerjobs.instruments import Level, Tally, Timings
from brokerjobs.metrics import CONSUMER, EXCEPTIONS, OTHER, PUBLISH_OUTCOMES, PUBLISHER, Metrics
from brokerjobs.outcome import WORDS

# What Prometheus and its operator for Kubernetes call a target by: a label of ours by such a name would be renamed.
TARGETS = {"job", "instance", "namespace", "pod", "container", "node", "service", "endpoint"}
LABELS = {"queue", "job_name", "outcome", "exception", "role", "how", "cause", "le"}


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
        assert found["brokerjobs_jobs_received_total", (("job_name", job), ("queue", "emails"))] == 0
        for outcome in WORDS:
            key = (("job_name", job), ("outcome", outcome), ("queue", "emails"))
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
    assert {labels["job_name"] for _, labels, _ in found if "job_name" in labels} == {
        "emails.welcome",
        "emails.receipt",
        OTHER,
    }
    assert {labels["outcome"] for _, labels, _ in found if "outcome" in labels} == {*WORDS, *PUBLISH_OUTCOMES}


def test_no_label_is_one_of_prometheus() -> None:
    instruments = [one for one in vars(Metrics()).values() if isinstance(one, Tally | Level | Timings)]
    labels = {label for instrument in instruments for label in instrument._labels}

    assert "job_name" in labels
    assert not labels & TARGETS


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


def test_exceptions_beyond_the_first_ones_are_counted_as_other() -> None:
    metrics = Metrics()
    names = [f"app.Error{number}" for number in range(EXCEPTIONS + 10)]

    counted = [metrics.exception(name) for name in (*names, *names)]

    assert counted[: EXCEPTIONS + 1] == [*names[:EXCEPTIONS], OTHER]
    assert set(counted[EXCEPTIONS : len(names)]) == {OTHER}
    assert counted[len(names) :] == counted[: len(names)]


@pytest.mark.parametrize(
    ("outcome", "seconds", "timed"),
    [("confirmed", 0.02, 1), ("confirmed", None, 0), ("refused", 0.02, 0), ("unknown", 30.0, 0)],
)
def test_only_confirmed_sends_of_one_message_are_timed(
    outcome: str, seconds: float | None, timed: int
) -> None:
    metrics = Metrics()

    metrics.count_published(outcome, seconds)

    found = {name: value for name, labels, value in series(metrics) if labels in ({}, {"outcome": outcome})}
    assert found["brokerjobs_jobs_published_total"] == 1
    assert found["brokerjobs_publish_duration_seconds_count"] == timed


def test_worker_says_what_it_is() -> None:
    metrics = Metrics()

    metrics.prepare_worker("1.2.3")

    found = {name: (labels, value) for name, labels, value in series(metrics)}
    labels, value = found["brokerjobs_worker_info"]
    assert (labels["version"], labels["python"], value) == ("1.2.3", platform.python_version(), 1)
    assert found["brokerjobs_event_loop_lag_seconds"] == ({}, 0)


# -- of a connection


def of_role(metrics: Metrics, role: str) -> tuple[float, ...]:
    """Connected, reconnects, seconds blocked."""
    return tuple(
        value for name, labels, value in series(metrics) if labels == {"role": role} and "broker" in name
    )


def test_record_of_a_connection() -> None:
    metrics = Metrics()
    metrics.prepare_worker("1.2.3")
    record = ConnectionRecord(metrics, CONSUMER)
    assert of_role(metrics, CONSUMER) == (0, 0, 0)
    assert of_role(metrics, PUBLISHER) == (1, 0, 0)  # it is not needed yet

    for opens in range(3):
        record.opened()
        assert of_role(metrics, CONSUMER) == (1, opens, 0)
        record.lost()
        assert of_role(metrics, CONSUMER) == (0, opens, 0)

    record.alarmed(True)
    assert of_role(metrics, CONSUMER)[2] > 0
    assert of_role(metrics, PUBLISHER) == (1, 0, 0)


def test_each_has_a_registry_of_its_own_unless_given_one() -> None:
    registry = CollectorRegistry()

    assert Metrics().registry is not Metrics().registry
    assert Metrics(registry).registry is registry
