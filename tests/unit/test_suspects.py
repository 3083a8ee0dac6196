"""Which messages run in a child, because they may have killed a worker."""

from __future__ import annotations

from typing import Any

import pytest

from brokerjobs import Message
from brokerjobs.suspects import SUSPICIOUS, Verdict, judge


def verdict(redelivered: bool = False, headers: dict[str, Any] | None = None, **fields: int) -> Verdict:
    message = Message(job="emails.welcome", routing_key="emails.welcome", headers=headers or {}, **fields)  # type: ignore[arg-type]
    return judge(message, redelivered=redelivered)


def test_first_delivery_runs() -> None:
    assert verdict() is Verdict.RUN
    assert verdict(headers={"x-delivery-count": 0}) is Verdict.RUN  # as RabbitMQ 3.10 says it


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
    assert verdict(redelivered=True, headers=headers) is expected


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
