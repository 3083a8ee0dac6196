from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from brokerjobs.context import Context, current, current_job
from brokerjobs.failure import Failure
from brokerjobs.message import Message
from brokerjobs.outcome import DeadLettered, Outcome, Released, Succeeded

MESSAGE = Message(
    job="emails.welcome", routing_key="emails.welcome", id="7", attempt=3, headers={"tenant": "shop"}
)


def test_context_tells_what_runs() -> None:
    context = Context(message=MESSAGE, queue="emails", redelivered=True, max_attempts=12)

    assert (context.id, context.job, context.attempt) == ("7", "emails.welcome", 3)
    assert (context.queue, context.redelivered, context.max_attempts) == ("emails", True, 12)
    assert context.headers == {"tenant": "shop"}


def test_headers_are_for_reading() -> None:
    context = Context(message=MESSAGE, queue="emails")

    with pytest.raises(TypeError):
        context.headers["tenant"] = "other"  # type: ignore[index]


def test_remaining_time_counts_down_to_the_deadline() -> None:
    assert Context(message=MESSAGE, queue="emails").remaining == float("inf")
    assert 50 < Context(message=MESSAGE, queue="emails", deadline=time.monotonic() + 60).remaining <= 60


@pytest.mark.parametrize(
    ("decide", "expected"),
    [
        (Context.ack, Succeeded()),
        (Context.nack, Released("nack by the job")),
        (Context.reject, DeadLettered(reason="rejected", failure=Failure(text="rejected by the job"))),
        (
            lambda context: context.reject("no such order"),
            DeadLettered(reason="rejected", failure=Failure(text="no such order")),
        ),
    ],
)
def test_decision_is_told_at_once(decide: Callable[[Context], None], expected: Outcome) -> None:
    told: list[Outcome] = []
    context = Context(message=MESSAGE, queue="emails", _decide=told.append)

    decide(context)

    assert told == [expected]
    assert context.decision == expected


def test_first_decision_holds() -> None:
    told: list[Outcome] = []
    context = Context(message=MESSAGE, queue="emails", _decide=told.append)

    context.ack()
    context.reject()
    context.nack()
    context.ack()

    assert told == [Succeeded()]
    assert context.decision == Succeeded()


def test_current_job_is_that_of_the_running_code() -> None:
    context = Context(message=MESSAGE, queue="emails")
    token = current.set(context)

    assert current_job() is context

    current.reset(token)


def test_outside_a_job_there_is_no_current_one() -> None:
    with pytest.raises(LookupError, match="works inside a job only"):
        current_job()
