from __future__ import annotations

from typing import get_args

import pytest

from brokerjobs.failure import Failure
from brokerjobs.outcome import WORDS, DeadLettered, Outcome, Released, Retried, Succeeded, word


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Succeeded(7), "succeeded"),
        (Retried(delay=1, reason="failed"), "retried"),
        (DeadLettered(reason="rejected", failure=Failure()), "dead"),
        (Released("the worker is stopping"), "released"),
    ],
)
def test_outcome_has_one_word_everywhere(outcome: Outcome, expected: str) -> None:
    assert word(outcome) == expected
    assert expected in WORDS


def test_every_outcome_has_its_word() -> None:
    assert len(get_args(Outcome)) == len(WORDS) == len(set(WORDS))
