"""How these tests run commands: most are forked, from a process that has loaded all of them."""

from __future__ import annotations

import os
import signal
import subprocess
import threading

import pytest

from brokerjobs.cli import VERBS
from tests import forked
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


def test_what_takes_too_long_is_killed_however_late_it_was_forked() -> None:
    """Or it would outlive all tests: nobody else knows of it."""
    reading, writing = os.pipe()
    with (
        open(reading, "rb", 0) as news,
        open(writing, "wb", 0) as attendant,
        subprocess.Popen(["sleep", "3600"]) as command,
    ):
        telling = threading.Timer(0.3, attendant.write, [f"{command.pid} ".encode()])
        telling.start()
        try:
            with pytest.raises(subprocess.TimeoutExpired):
                forked._code(news, ["jobs"], 0.1)
            assert command.wait(10) == -signal.SIGKILL
        finally:
            telling.join()
            command.kill()
