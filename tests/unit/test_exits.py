"""How a process ended, in words for people and for metrics."""

from __future__ import annotations

import signal

import pytest

from brokerjobs.executor.exits import death_word, exit_reason


@pytest.mark.parametrize(
    ("code", "reason", "word"),
    [
        (0, "exit code 0", "exit"),
        (3, "exit code 3", "exit"),
        (-signal.SIGSEGV, "killed by SIGSEGV", "SIGSEGV"),
        (-signal.SIGKILL, "killed by SIGKILL", "SIGKILL"),
        (-40, "killed by signal 40", "signal 40"),
    ],
)
def test_exit_code_in_words(code: int, reason: str, word: str) -> None:
    assert exit_reason(code) == reason
    assert death_word(code) == word
