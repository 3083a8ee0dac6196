"""What all verbs have in common: help, usage errors, JSON, pipes, completion."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import subprocess

import click
import pytest

from brokerjobs import __version__
from brokerjobs.cli import cli
from tests.conftest import one_version
from tests.shell import COMMAND, PATIENCE, Shell

pytestmark = pytest.mark.timeout(300)

EMAILS = """
from brokerjobs import Consumer

consumer = Consumer("emails")
orders = Consumer("orders")


@consumer.job()
def welcome(user_id: int) -> None: ...
"""


def verbs(command: click.Command = cli, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every verb there is, and the groups that hold them."""
    found = [path]
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            found += verbs(inner, (*path, name))
    return found


def name_of(verb: tuple[str, ...]) -> str:
    return " ".join(verb) or "brokerjobs"


@pytest.mark.parametrize("verb", verbs(), ids=name_of)
def test_help_of_every_verb_tells_how_to_use_it(offline: Shell, verb: tuple[str, ...]) -> None:
    done = offline.run(*verb, "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: {' '.join(('brokerjobs', *verb))}")


def test_help_has_a_short_form(offline: Shell) -> None:
    assert offline.run("consume", "-h") == offline.run("consume", "--help")


@pytest.mark.parametrize("verb", [(), ("consume",), ("topology", "check")], ids=name_of)
def test_unknown_option_is_exit_code_2(offline: Shell, verb: tuple[str, ...]) -> None:
    done = offline.run(*verb, "--no-such-option")
    assert (done.code, done.out) == (2, "")
    assert done.complaint.startswith("brokerjobs: No such option")
    assert "--no-such-option" in done.complaint
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "arguments",
    [("consum",), ("topology", "aply"), ("topology", "apply", "--json=1"), ("consume", "-c", "x")],
)
def test_usage_error_is_one_clear_line(offline: Shell, arguments: tuple[str, ...]) -> None:
    done = offline.run(*arguments)
    assert (done.code, done.out) == (2, "")
    *usage, complaint = done.err.splitlines()
    assert all(line.startswith("Usage: brokerjobs") for line in usage)
    assert complaint.startswith("brokerjobs: ")
    assert "Traceback" not in done.err


def test_version(offline: Shell) -> None:
    done = offline.run("--version")
    assert (done.code, done.err) == (0, "")
    assert __version__ in done.out


@one_version
def test_json_of_every_verb_that_reads_is_one_value(online: Shell) -> None:
    online.write("consumers/emails.py", EMAILS)
    assert online.run("topology", "apply").code == 0
    for verb in (
        ("broker", "status"),
        ("config",),
        ("dead", "list", "emails"),
        ("jobs",),
        ("queues",),
        ("topology", "check"),
        ("topology", "show"),
    ):
        done = online.run(*verb, "--json")
        assert isinstance(done.json, dict | list), verb
        assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "verb", [("dead", "list", "emails"), ("queues",), ("dead", "replay", "emails", "--all")], ids=name_of
)
def test_no_broker_is_exit_code_69_whatever_is_asked(offline: Shell, verb: tuple[str, ...]) -> None:
    url = "amqp://jane:geheim@127.0.0.1:1/"
    done = offline.run(*verb, BROKERJOBS_URL=url, BROKERJOBS_PUBLISH_TIMEOUT="500ms")
    assert (done.code, done.out) == (69, ""), done.err
    assert done.err.count("\n") == 1
    assert "127.0.0.1:1" in done.err
    assert "geheim" not in done.err


# -- pipes


def sh(shell: Shell, line: str) -> subprocess.CompletedProcess[str]:
    """A line of bash in which `brokerjobs` is the command; its exit code is that of the command."""
    return subprocess.run(
        ["bash", "-c", f'set -o pipefail; brokerjobs() {{ {shlex.join(COMMAND)} "$@"; }}; {line}'],
        cwd=shell.folder,
        env=shell.env,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("verb", ["topology show", "config --json", "jobs", "--help", "consume --help"])
def test_reader_that_goes_away_is_no_traceback(offline: Shell, verb: str) -> None:
    offline.write("consumers/emails.py", EMAILS)
    done = sh(offline, f"brokerjobs {verb} | true")
    assert done.stderr == ""
    first = sh(offline, f"brokerjobs {verb} | head -n 1")
    assert first.stdout.count("\n") == 1
    assert first.stderr == ""


def test_full_disk_is_one_clear_line(offline: Shell) -> None:
    offline.write("consumers/emails.py", EMAILS)
    done = sh(offline, "brokerjobs jobs > /dev/full")
    assert done.returncode == 1
    assert done.stderr == "brokerjobs: cannot write: No space left on device\n"


def test_closed_standard_streams_are_no_error(offline: Shell) -> None:
    offline.write("consumers/emails.py", EMAILS)
    done = sh(offline, "brokerjobs jobs <&- >&-")
    assert (done.returncode, done.stderr) == (0, "")


def test_terminal_gets_a_table(offline: Shell) -> None:
    offline.write("consumers/emails.py", EMAILS)
    ours, theirs = pty.openpty()
    with subprocess.Popen([*COMMAND, "jobs"], cwd=offline.folder, env=offline.env, stdout=theirs) as process:
        os.close(theirs)
        shown = _read_all(ours)
        assert process.wait(PATIENCE) == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert re.match(r" *job +queue +parameters", lines[1])
    assert any(re.match(r" *emails\.welcome +emails +\(user_id: int\)", line) for line in lines)
    assert "\t" not in shown


def _read_all(terminal: int) -> str:
    """What is written to a terminal until its last writer has gone."""
    shown = b""
    try:
        while select.select([terminal], [], [], PATIENCE)[0]:
            shown += os.read(terminal, 65536)
    except OSError:  # how Linux says that
        pass
    finally:
        os.close(terminal)
    return shown.decode()


# -- completion


@pytest.mark.parametrize("kind", ["bash", "zsh", "fish"])
def test_completion_script_is_printed(offline: Shell, kind: str) -> None:
    done = offline.run(_BROKERJOBS_COMPLETE=f"{kind}_source")
    assert (done.code, done.err) == (0, "")
    assert "_BROKERJOBS_COMPLETE" in done.out
    assert "brokerjobs" in done.out


def complete(shell: Shell, line: str) -> list[str]:
    """What bash offers after this line."""
    done = shell.run(
        _BROKERJOBS_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(line.split(" ")) - 1)
    )
    assert (done.code, done.err) == (0, "")
    return [offer.partition(",")[2] for offer in done.out.splitlines() if offer]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("brokerjobs con", ["config", "consume"]),
        ("brokerjobs consume ", ["emails", "orders"]),
        ("brokerjobs consume em", ["emails"]),
        ("brokerjobs consume emails o", ["orders"]),
        ("brokerjobs topology apply or", ["orders"]),
        ("brokerjobs publish emails.", ["emails.welcome"]),
        ("brokerjobs consume --topology ch", ["check"]),
    ],
)
def test_verbs_queues_and_jobs_complete(offline: Shell, line: str, offered: list[str]) -> None:
    offline.write("consumers/emails.py", EMAILS)
    assert complete(offline, line) == offered


def test_completion_says_nothing_where_consumers_are_broken(offline: Shell) -> None:
    offline.write("consumers/emails.py", "raise RuntimeError\n")
    assert complete(offline, "brokerjobs consume ") == []
