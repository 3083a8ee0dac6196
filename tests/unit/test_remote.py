"""Which messages a cancellation covers: those that were sent before it, however late they are delivered."""

from __future__ import annotations

from typing import Any

import pytest

from brokerjobs.amqp.settlement import Entry, history, write_history
from brokerjobs.message import Message
from brokerjobs.remote import Cancellations

AT = 1_700_000_000.0  # seconds


def message(*, replayed_at: float = 0.0) -> Message:
    entries = [Entry(at=AT - 100, attempt=1, error="OSError")]
    if replayed_at:
        entries.append(Entry(at=replayed_at, replay=1))
    return Message(
        job="emails.welcome", routing_key="emails.welcome", id="7", marks={"history": write_history(entries)}
    )


@pytest.fixture
def cancellations() -> Cancellations:
    cancellations = Cancellations()
    cancellations.add({"id": "7", "at": int(AT * 1000)})
    return cancellations


@pytest.mark.parametrize(
    ("sent_at", "replayed_at", "covered"),
    [
        (AT - 1, 0, True),
        (AT, 0, True),
        (0, 0, True),  # nobody knows when
        (AT + 1, 0, False),
        (AT - 10, AT - 5, True),
        (AT - 10, AT + 5, False),
    ],
)
def test_what_was_sent_before_is_covered(
    cancellations: Cancellations, sent_at: float, replayed_at: float, covered: bool
) -> None:
    assert cancellations.cover(message(replayed_at=replayed_at), lambda: sent_at) is covered


def test_other_ids_are_not_covered(cancellations: Cancellations) -> None:
    other = Message(job="emails.welcome", routing_key="emails.welcome", id="8")

    assert cancellations.cover(other, lambda: 0.0) is False


def test_the_latest_cancellation_of_an_id_holds(cancellations: Cancellations) -> None:
    cancellations.add({"id": "7", "at": int((AT - 50) * 1000)})
    assert cancellations.cover(message(), lambda: AT - 1)

    cancellations.add({"id": "7", "at": int((AT + 50) * 1000)})
    assert cancellations.cover(message(), lambda: AT + 49)


@pytest.mark.parametrize("body", [{}, {"id": 7, "at": 1}, {"id": "8", "at": "now"}, {"mark": "x"}])
def test_what_is_no_cancellation_is_passed_over(cancellations: Cancellations, body: dict[str, Any]) -> None:
    cancellations.add(body)

    assert cancellations.cover(message(), lambda: AT)


def test_replay_is_remembered_however_many_attempts_follow() -> None:
    entries = [Entry(at=AT, replay=1), *(Entry(at=AT + n, attempt=n, error="OSError") for n in range(1, 40))]

    kept = history(Message(job="a", routing_key="a", marks={"history": write_history(entries)}))

    assert (kept[0].replay, kept[-1].attempt, len(kept)) == (1, 39, 20)
