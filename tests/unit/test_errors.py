from __future__ import annotations

import inspect
import re
from datetime import timedelta

import pytest

from brokerjobs import errors
from brokerjobs.errors import (
    BrokerJobsError,
    JobTimeout,
    PublishRefused,
    PublishUnknown,
    Reject,
    RetryLater,
    UndecodableMessage,
)


def drawn_tree() -> dict[str, str]:
    """Each class in the drawing at the top of the module, with the one above it."""
    parents: dict[str, str] = {}
    branch: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r" {4}((?:[│ ] {3})*)(├── |└── )?([A-Z]\w+)\b", line):
            depth = len(found[1]) // 4 + bool(found[2])
            branch = [*branch[:depth], found[3]]
            parents[found[3]] = branch[depth - 1] if depth else ""
    return parents


def test_error_tree_is_drawn_as_it_is() -> None:
    classes = {
        name: cls
        for name, cls in inspect.getmembers(errors, inspect.isclass)
        if cls.__module__ == errors.__name__ and issubclass(cls, BrokerJobsError)
    }

    drawn = drawn_tree()

    assert set(drawn) == set(classes)
    for name, above in drawn.items():
        assert above == "" or classes[name].__bases__[0] is classes[above]


@pytest.mark.parametrize("name", ["MessageTooLarge", "UnknownQueue", "BrokerUnreachable", "InvalidArguments"])
def test_refusals_are_told_apart_from_the_unknown(name: str) -> None:
    refusal = getattr(errors, name)

    assert issubclass(refusal, PublishRefused)
    assert not issubclass(refusal, PublishUnknown)
    assert not issubclass(PublishUnknown, PublishRefused)


def test_instructions_of_a_job_are_no_errors_of_ours() -> None:
    for instruction in (Reject(), RetryLater(1)):
        assert not isinstance(instruction, BrokerJobsError)


def test_unknown_publish_names_the_id_to_send_again() -> None:
    assert PublishUnknown("no confirm", id="7").id == "7"


def test_undecodable_message_has_a_word_and_a_sentence() -> None:
    error = UndecodableMessage("json", "the body is not JSON")

    assert (error.reason, str(error)) == ("json", "the body is not JSON")


def test_job_timeout_is_a_timeout_of_python_too() -> None:
    assert issubclass(JobTimeout, TimeoutError)


def test_reject_says_why() -> None:
    assert str(Reject()) == "rejected by the job"
    assert str(Reject("no such order")) == "no such order"


@pytest.mark.parametrize("after", [5, 0.5, "10m", timedelta(hours=1)])
def test_retry_later_keeps_the_delay_as_given(after: float | str | timedelta) -> None:
    instruction = RetryLater(after)

    assert instruction.after == after
    assert str(after) in str(instruction)
    assert str(RetryLater(after, "rate limit")) == "rate limit"
