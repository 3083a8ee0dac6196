"""Jobs that may take longer than RabbitMQ waits for an acknowledgement are found before they run."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from brokerjobs import Consumer
from brokerjobs.capabilities import Capabilities
from brokerjobs.errors import ConfigurationError
from brokerjobs.long_jobs import acknowledge_within, check
from brokerjobs.settings import Settings

OLD, POLICY, NEW = Capabilities((3, 10, 8)), Capabilities((4, 0, 5)), Capabilities((4, 3, 6))


def consumer(timeout: str) -> Consumer:
    reports = Consumer("reports")

    @reports.job(timeout="1m")
    async def daily() -> None: ...

    @reports.job(timeout=timeout)
    async def yearly() -> None: ...

    return reports


def waiting(limit: str | float | None, **others: str) -> Settings:
    """Settings that say how long RabbitMQ waits."""
    return Settings.model_validate({"consumer_timeout": limit, **others})


@pytest.mark.parametrize(
    ("timeout", "limit", "prefetch", "seconds"),
    [
        ("10m", None, 10, 1800),
        ("10m", "1h", 10, 3600),
        ("2h", None, 10, 7260),
        ("2h", None, 11, 2 * 7200 + 60),
        ("2h", "1h", 1, 7260),
        ("60d", None, 10, 2_147_483),
        ("2h", 0, 10, None),
    ],
)
def test_a_worker_asks_for_as_long_as_its_longest_job_may_take_and_no_less_than_usual(
    timeout: str, limit: str | None, prefetch: int, seconds: float | None
) -> None:
    settings = waiting(limit)

    assert acknowledge_within(consumer(timeout), settings, prefetch) == seconds


@pytest.mark.parametrize(
    ("timeout", "limit", "capabilities", "prefetch"),
    [
        ("29m", None, OLD, 10),
        ("2h", "3h", OLD, 10),
        ("2h", 0, OLD, 10),
        ("2h", None, NEW, 10),
        ("2h", "1h", NEW, 10),
    ],
)
def test_jobs_that_have_the_time_are_no_news(
    timeout: str, limit: str | None, capabilities: Capabilities, prefetch: int
) -> None:
    with capture_logs() as lines:
        check(consumer(timeout), waiting(limit), capabilities, prefetch)
    assert lines == []


@pytest.mark.parametrize(
    ("timeout", "limit", "prefetch"),
    [("30m", None, 10), ("2h", None, 10), ("16m", None, 20), ("119m30s", "2h", 10)],
)
def test_a_job_that_may_take_longer_is_told_of(timeout: str, limit: str | None, prefetch: int) -> None:
    with capture_logs() as lines:
        check(consumer(timeout), waiting(limit), OLD, prefetch)

    (line,) = lines
    assert (line["event"], line["log_level"]) == ("job longer than RabbitMQ waits", "warning")
    assert line["error"].startswith("reports.yearly may take ")


def test_a_job_that_surely_takes_longer_is_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigurationError) as caught:
        check(consumer("2h"), waiting("1h", namespace="shop"), POLICY, 10)

    assert str(caught.value) == (
        "reports.yearly may take 2h, and RabbitMQ 4.0.5 takes back what is not acknowledged within 1h: it would run "
        "again beside itself. Lower the job's timeout, or let RabbitMQ wait longer and say so here: set "
        "`consumer_timeout = 7260000` in rabbitmq.conf, or run: rabbitmqctl set_policy reports-timeout "
        "'^shop\\.reports$' '{\"consumer-timeout\": 7260000}' --apply-to queues (with -p for a virtual host); then "
        "BROKERJOBS_CONSUMER_TIMEOUT=7260s"
    )


def test_a_policy_is_no_advice_where_there_are_none_for_this() -> None:
    with capture_logs() as lines:
        check(consumer("2h"), Settings(), OLD, 10)
    assert "set_policy" not in lines[0]["hint"]
    assert "consumer_timeout = 7260000" in lines[0]["hint"]


def test_a_consumer_without_jobs_takes_no_time() -> None:
    with capture_logs() as lines:
        check(Consumer("reports"), Settings(), OLD, 10)
    assert lines == []
    assert acknowledge_within(Consumer("reports"), Settings(), 10) == 1800
