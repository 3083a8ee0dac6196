"""How these tests run commands: most are forked, from a process that has loaded all of them."""

from __future__ import annotations

import signal
import subprocess

import pytest

from brokerjobs.cli import VERBS
from tests.shell import Shell

KILLED = """
import os, signal

from brokerjobs import Consumer

os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("verb", [*VERBS, "--version"])
def test_verb_is_loaded_by_itself(offline: Shell, verb: str) -> None:
    """Where it is forked, others have imported for it."""
    done = offline.run_python(verb, "--help")
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "stdin", "env"),
    [
        ((), "", {}),
        (("nonsense",), "", {}),
        (("config", "--json"), "", {"BROKERJOBS_CONCURRENCY": "7"}),
        (("jobs",), "", {"BROKERJOBS_CONSUMERS": "elsewhere"}),
        (("publish", "emails.welcome", "-"), "no JSON \N{BROKEN HEART}", {}),
        (("jobs",), "", {"BROKERJOBS_CONSUMERS": "killed"}),
    ],
)
def test_forked_command_is_as_python_would_run_it(
    offline: Shell, arguments: tuple[str, ...], stdin: str, env: dict[str, str]
) -> None:
    offline.write("killed.py", KILLED)
    forked = offline.run(*arguments, stdin=stdin, **env)
    assert forked == offline.run_python(*arguments, stdin=stdin, **env)
    assert forked.out or forked.err or forked.code == -signal.SIGKILL


def test_forked_command_that_takes_too_long_is_killed(
    offline: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.shell.PATIENCE", 0.2)
    offline.write("consumers/emails.py", "import time\n\ntime.sleep(3600)")
    with pytest.raises(subprocess.TimeoutExpired):
        offline.run("jobs")
