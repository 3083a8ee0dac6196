"""What a worker tells of itself: read as it was written, by operators of another version too."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from brokerjobs.worker_state import QueueWork, RecentFailure, RunningJob, WorkerState, read

STATE = WorkerState(
    worker="host:1",
    queues=("emails",),
    since=100.0,
    paused={"emails": {"operator": "maintenance"}},
    running=(RunningJob(id="7", job="emails.welcome", queue="emails", attempt=2, began=120.0),),
    work={
        "emails": QueueWork(
            slots=10,
            unstarted=3,
            received=9,
            finished={"succeeded": 5, "retried": 2, "dead": 1, "released": 4},
            due=119.0,
            began=120.0,
        )
    },
    failures=(
        RecentFailure(
            at=110.0,
            queue="emails",
            job="emails.welcome",
            id="6",
            attempt=1,
            outcome="retried",
            error="OSError",
        ),
    ),
)


def written(**changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(json.dumps(asdict(STATE)))
    return {**body, **changes}


def test_state_is_read_as_it_was_written() -> None:
    assert read(written()) == STATE


def test_what_an_older_worker_does_not_tell_is_empty() -> None:
    body = {name: told for name, told in written().items() if name not in ("work", "failures")}

    state = read(body)

    assert state is not None
    assert (state.worker, state.running, state.work, state.failures) == ("host:1", STATE.running, {}, ())


def test_what_a_newer_worker_adds_is_passed_over() -> None:
    assert read(written(mood="good")) == STATE


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"worker": "x"},
        written(queues=None),
        written(since="never"),
        written(paused=[]),
        written(running=[{}]),
        written(work=[]),
        written(work={"emails": {"slots": 1}}),
        written(work={"emails": {**asdict(STATE.work["emails"]), "finished": 3}}),
        written(failures=[7]),
        written(failures=5),
    ],
)
def test_what_a_stranger_writes_is_no_state(body: dict[str, Any]) -> None:
    assert read(body) is None


def test_done_is_what_has_left_the_queue_and_failed_what_did_not_succeed() -> None:
    work = STATE.work["emails"]

    assert (work.done, work.failed) == (8, 3)
