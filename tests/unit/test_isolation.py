"""Which consumers have processes, and what is said of those that cannot."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from brokerjobs import Consumer, isolation
from brokerjobs.isolation import processes_for
from brokerjobs.metrics import Metrics
from brokerjobs.settings import Settings
from tests import risky


async def test_consumer_of_a_module_has_processes() -> None:
    with capture_logs() as logs:
        assert processes_for(risky.consumer, Settings(), 1, Metrics()) is not None
    assert logs == []


async def test_many_slots_are_not_as_many_processes_where_no_job_asks_for_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits: list[int] = []
    monkeypatch.setattr(isolation, "Processes", lambda program, limit, on_death: limits.append(limit))
    plain = Consumer("plain")
    monkeypatch.setattr(risky, "plain", plain, raising=False)

    for consumer in risky.consumer, plain:
        for slots in 2, 500:
            processes_for(consumer, Settings(), slots, Metrics())

    assert limits == [2, 500, 2, isolation.SUSPECTS_AT_ONCE]


async def test_consumer_that_nobody_could_import_has_none_and_is_named_if_its_jobs_want_some() -> None:
    consumer = Consumer("emails")

    with capture_logs() as logs:
        assert processes_for(consumer, Settings(), 1, Metrics()) is None
        assert logs == []
        consumer.job(name="welcome", isolate=True)(lambda: None)
        assert processes_for(consumer, Settings(), 1, Metrics()) is None

    assert [(line["event"], line["jobs"]) for line in logs] == [("jobs not isolated", ["emails.welcome"])]
