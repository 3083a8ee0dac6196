"""Which messages a cancellation covers, and what a worker logs of what operators did."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from typing import Any

import pytest
from structlog.testing import capture_logs

from brokerjobs import control
from brokerjobs import settings as settings_module
from brokerjobs.amqp.control import Command
from brokerjobs.amqp.settlement import Entry, history, write_history
from brokerjobs.message import Message
from brokerjobs.remote import Cancellations, Remote

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


# -- what was done with dead letters


@dataclass
class Lane:
    """What is asked of one here."""

    queue: str
    is_cancelled: object = None


def heard(verb: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The lines of a worker of two queues that hears this."""
    lanes: Any = [Lane("emails"), Lane("reports")]
    publisher: Any = None
    remote = Remote(settings_module.load(url="amqp://localhost"), lanes, publisher)
    with capture_logs() as lines:
        remote._obey(Command(verb, body))
    return [dict(line) for line in lines]


@pytest.mark.parametrize("done", ["replayed", "dropped"])
def test_what_was_done_with_dead_letters_is_logged_by_workers_of_their_queue(done: str) -> None:
    body = {"queue": "emails", "done": done, "count": 3, "by": "ada on desk"}

    assert heard("handled", body) == [
        {
            "event": f"dead letters {done}",
            "log_level": "info",
            "queue": "emails",
            "count": 3,
            "by": "ada on desk",
        }
    ]
    assert heard("handled", body | {"queue": "orders"}) == []


@pytest.mark.parametrize(
    "nonsense",
    [{"queue": None}, {"queue": ["emails"]}, {"done": "eaten"}, {"count": "many"}, {"count": None}],
)
def test_nonsense_about_dead_letters_is_passed_over(nonsense: dict[str, Any]) -> None:
    assert heard("handled", {"queue": "emails", "done": "dropped", "count": 3} | nonsense) == []


def test_who_did_it_may_be_a_number_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 10001")

    monkeypatch.setattr(getpass, "getuser", nobody)

    assert control._operator().startswith("user ")
