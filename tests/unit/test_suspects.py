"""Which messages run in a child, because they may have killed a worker."""

from __future__ import annotations

from typing import Any

import pytest

from brokerjobs import Message
from brokerjobs.suspects import SUSPICIOUS, Verdict, judge


def verdict(
    redelivered: bool = False,
    headers: dict[str, Any] | None = None,
    counted: bool | None = False,
    **fields: int,
) -> Verdict:
    message = Message(job="emails.welcome", routing_key="emails.welcome", headers=headers or {}, **fields)  # type: ignore[arg-type]
    return judge(message, redelivered=redelivered, counted=counted)


def test_first_delivery_runs() -> None:
    assert verdict() is Verdict.RUN
    assert verdict(headers={"x-delivery-count": 0}, counted=True) is Verdict.RUN  # as RabbitMQ 3.10 says it


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-delivery-count": 1}, Verdict.RUN),
        ({"x-delivery-count": 2}, Verdict.ISOLATE),
        ({"x-delivery-count": 900}, Verdict.ISOLATE),
        ({"x-delivery-count": 1, "x-acquired-count": 7}, Verdict.RUN),  # 4.3: six of them given back
        ({"x-acquired-count": 1}, Verdict.RUN),
        ({"x-delivery-count": "many"}, Verdict.RUN),
    ],
)
def test_quorum_queue_counts_by_itself(headers: dict[str, Any], expected: Verdict) -> None:
    assert verdict(redelivered=True, headers=headers, counted=True) is expected


def test_where_the_kind_of_queue_is_unknown_the_header_is_believed() -> None:
    assert verdict(redelivered=True, headers={"x-delivery-count": 1}, counted=None) is Verdict.RUN
    assert verdict(redelivered=True, headers={"x-delivery-count": 2}, counted=None) is Verdict.ISOLATE
    assert verdict(redelivered=True, counted=None) is Verdict.COUNT


@pytest.mark.parametrize("count", [0, 1, 900])
def test_what_a_publisher_wrote_is_no_count(count: int) -> None:
    """Or another queue, from which the message was moved here with its headers."""
    headers = {"x-delivery-count": count, "x-acquired-count": count}

    assert verdict(headers=headers) is Verdict.RUN
    assert verdict(redelivered=True, headers=headers) is Verdict.COUNT


def test_classic_queue_only_says_redelivered_so_a_copy_counts() -> None:
    assert verdict(redelivered=True) is Verdict.COUNT
    assert verdict(redeliveries=1) is Verdict.RUN
    assert verdict(redelivered=True, redeliveries=1) is Verdict.COUNT
    assert verdict(redeliveries=SUSPICIOUS) is Verdict.ISOLATE


def test_what_is_isolated_anyway_needs_no_counting() -> None:
    assert verdict(redelivered=True, redeliveries=SUSPICIOUS) is Verdict.ISOLATE
    assert verdict(redelivered=True, crashes=1) is Verdict.ISOLATE


def test_one_crash_isolates() -> None:
    assert verdict(crashes=1) is Verdict.ISOLATE
