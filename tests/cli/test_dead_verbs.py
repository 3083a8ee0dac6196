"""`brokerjobs dead` as a person at a shell uses it."""

from __future__ import annotations

import json
import os
import pty
import shlex
import signal
import subprocess
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest

from brokerjobs.amqp.walk import walk
from brokerjobs.settings import Settings
from tests import amqp
from tests.shell import COMMAND, PATIENCE, Shell
from tests.waiting import eventually

EMAILS = """
from pathlib import Path
from brokerjobs import Consumer, Retry

consumer = Consumer("emails", retry=Retry(delays=[0.125]))

@consumer.job()
def welcome(user_id: int, locale: str = "en") -> None:
    if not Path("mended").exists():
        raise ConnectionError("mail server is away\\nasked twice")
    with Path("done").open("a") as done:
        done.write(f"{user_id} {locale}\\n")
"""


@pytest.fixture
def shell(online: Shell) -> Shell:
    """A shell whose broker has the queue `emails`."""
    online.write("consumers/emails.py", EMAILS)
    assert online.run("topology", "apply").code == 0
    return online


def bury(url: str, count: int = 1, job: str = "emails.welcome", **marks: str) -> list[str]:
    """Put messages into the dead letter queue, as a worker does; gives their ids."""
    ids = [str(uuid.uuid4()) for _ in range(count)]
    headers = {"reason": "failed", "error-kind": "ValueError", "error": "no such user", "key": job, **marks}
    for id in ids:
        amqp.publish(
            url,
            "emails",
            b'{"user_id": 7}',
            exchange="jobs.dead",
            message_id=id,
            type=job,
            headers={
                **{f"brokerjobs-{name}": text for name, text in headers.items()},
                "brokerjobs-died-at": int(time.time() * 1000),
            },
        )
    return ids


def ids(url: str, queue: str) -> list[str]:
    return [found.properties.message_id for found in amqp.peek(url, queue)]


def test_dead_job_is_listed_shown_and_replayed_by_the_command_shown(shell: Shell, url: str) -> None:
    worker = shell.consume("emails")
    id = shell.run("publish", "emails.welcome", '{"user_id": 7, "locale": "de"}').out.strip()
    worker.until("job dead")
    eventually(lambda: amqp.ready(url, "emails.dead") == 1)

    listed = shell.run("dead", "list", "emails")
    header, line = listed.out.splitlines()
    assert header.split("\t") == ["id", "job", "reason", "error", "attempts", "age"]
    assert line.split("\t")[:5] == [
        id, "emails.welcome", "exhausted", "ConnectionError: mail server is away", "2",
    ]  # fmt: skip

    shown = shell.run("dead", "show", "emails", id[:20]).out
    for text in (
        f"id           {id}",
        "routing key  emails.welcome",
        "reason       exhausted",
        "error        ConnectionError: mail server is away\n             asked twice",
        "attempts     2",
        "attempt 1  ConnectionError: mail server is away",
        "attempt 2  ConnectionError: mail server is away",
        '    "user_id": 7,\n    "locale": "de"',
        "Traceback (most recent call last):",
        'raise ConnectionError("mail server is away\\nasked twice")',
    ):
        assert text in shown

    shell.write("mended", "")
    command = shlex.split(shown.splitlines()[-1])
    assert command[:4] == ["brokerjobs", "dead", "replay", "emails"]
    replayed = shell.run(*command[1:])
    assert (replayed.code, replayed.out) == (0, "replayed 1 of 1 dead letters to emails\n")
    eventually(lambda: shell.lines("done") == ["7 de"])
    noted = worker.until("dead letters replayed")
    assert (noted["queue"], noted["count"], bool(noted["by"])) == ("emails", 1, True)
    assert shell.run("dead", "list", "emails").out.splitlines() == [header]


def test_list_filters_groups_and_speaks_json(shell: Shell, url: str) -> None:
    first, second = bury(url, 2)
    (receipt,) = bury(url, job="emails.receipt", error="too late", reason="expired")

    def listed(*arguments: str) -> list[str]:
        found = shell.run("dead", "list", "emails", "--json", *arguments).json
        return [letter["id"] for letter in found["dead_letters"]]

    assert listed() == [first, second, receipt]
    assert listed("--job", "*.receipt") == [receipt]
    assert listed("--error", "NO SUCH") == [first, second]
    assert listed("--reason", "expired") == [receipt]
    assert listed("--since", "1h", "--job", "emails.w*") == [first, second]
    assert listed("--until", "2020-01-01T00:00") == []

    limited = shell.run("dead", "list", "emails", "--limit", "2")
    assert len(limited.out.splitlines()) == 3
    assert "more match" in limited.err
    assert shell.run("dead", "list", "emails", "--limit", "2", "--json").json["more"] is True

    groups = shell.run("dead", "list", "emails", "--group", "--json").json["groups"]
    assert [(group["count"], group["error"]) for group in groups] == [
        (2, "ValueError: no such user"),
        (1, "ValueError: too late"),
    ]
    table = shell.run("dead", "list", "emails", "--group").out.splitlines()
    assert table[1].split("\t")[:4] == ["2", "failed", "ValueError: no such user", "emails.welcome"]

    whole = shell.run("dead", "show", "emails", receipt, "--json").json
    assert (whole["arguments"], whole["reason"], whole["routing_key"]) == (
        {"user_id": 7}, "expired", "emails.receipt",
    )  # fmt: skip


def test_replay_and_drop_do_as_told_and_no_more(shell: Shell, url: str) -> None:
    first, second, third, fourth = bury(url, 4)
    dry = shell.run("dead", "replay", "emails", "--all", "--dry-run")
    assert [line.split("\t")[0] for line in dry.out.splitlines()[1:]] == [first, second, third, fourth]
    assert dry.err == "would replay 4 of 4 dead letters to emails\n"
    assert amqp.ready(url, "emails") == 0

    replayed = shell.run("dead", "replay", "emails", first, second[:30], "--json").json
    assert (replayed["done"], replayed["present"], replayed["dry_run"]) == (2, 4, False)
    assert ids(url, "emails") == [first, second]

    assert (
        shell.run("dead", "drop", "emails", third, "--yes").out == "dropped 1 of 2 dead letters of emails\n"
    )
    eventually(lambda: ids(url, "emails.dead") == [fourth])
    none = shell.run("dead", "replay", "emails", "--reason", "expired")
    assert (none.code, none.out) == (0, "nothing to replay: none of 1 dead letters matches\n")
    assert shell.run("dead", "replay", "emails", "--all", "--rate", "0").out.startswith("replayed 1 of 1")


@pytest.mark.parametrize("verb", ["replay", "drop"])
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "say which: ids, filters"),
        (["--job", ""], "say which"),
        ([""], "an ID is empty"),
        (["--all", "--job", "x"], "--all stands against ids and filters"),
        (["--all", "id"], "--all stands against ids and filters"),
        (["--since", "yesterday"], "'yesterday' is neither a duration such as 2h nor a time"),
        (["--all", "--limit", "0"], "'--limit'"),
    ],
)
def test_unclear_wish_is_refused(offline: Shell, verb: str, arguments: list[str], complaint: str) -> None:
    refused = offline.run("dead", verb, "emails", *arguments)
    assert refused.code == 2
    assert complaint in refused.complaint
    assert "Traceback" not in refused.err


def test_drop_without_a_terminal_needs_yes(shell: Shell, url: str) -> None:
    bury(url)
    refused = shell.run("dead", "drop", "emails", "--all")
    assert refused.code == 2
    assert "--yes" in refused.complaint
    assert amqp.ready(url, "emails.dead") == 1


def test_drop_asks_on_a_terminal(shell: Shell, url: str) -> None:
    bury(url, 2)
    code, said = on_terminal(shell, ["dead", "drop", "emails", "--all"], answer=b"n\n")
    assert code == 130
    assert "Drop 2 of 2 dead letters of emails for good?" in said
    eventually(lambda: amqp.ready(url, "emails.dead") == 2)
    code, said = on_terminal(shell, ["dead", "drop", "emails", "--all"], answer=b"y\n")
    assert code == 0
    assert "dropped 2 of 2 dead letters of emails" in said
    assert amqp.ready(url, "emails.dead") == 0


def on_terminal(shell: Shell, arguments: Sequence[str], answer: bytes) -> tuple[int, str]:
    """Run a command on a terminal of its own and answer its question."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, *arguments], cwd=shell.folder, env=shell.env, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        said = b""
        while True:
            try:
                chunk = os.read(ours, 4096)
            except OSError:  # the terminal's other side is closed
                break
            if not chunk:
                break
            said += chunk
            if answer and b"[y/N]" in said:
                os.write(ours, answer)
                answer = b""
        os.close(ours)
        return process.wait(timeout=PATIENCE), said.decode()


def test_strangers_text_moves_no_terminal_and_makes_no_command(shell: Shell, url: str) -> None:
    evil = "\x1b[2J\x07\x9b31m\u202e"
    amqp.publish(
        url,
        "emails",
        json.dumps({"name": evil, "lines": "a\nb"}).encode(),
        exchange="jobs.dead",
        message_id="$(reboot); -x",
        type=f"emails.{evil}",
        correlation_id=evil,
        headers={"brokerjobs-error": evil, "brokerjobs-traceback": evil, "theirs": evil},
    )
    (letter,) = shell.run("dead", "list", "emails", "--json").json["dead_letters"]
    said = [
        shell.run("dead", "list", "emails"),
        shell.run("dead", "list", "emails", "--group"),
        shell.run("dead", "show", "emails", letter["id"]),
        shell.run("dead", "show", "emails", letter["id"], "--json"),
    ]
    for result in said:
        assert result.code == 0, result.err
        assert all(char.isprintable() or char in "\t\n" for char in result.out)
    assert said[-1].json["arguments"]["name"] == evil
    assert said[-2].out.splitlines()[-1] == f"  brokerjobs dead replay emails {letter['id']}"
    assert letter["id"].startswith("no-id-")
    _, colourful = on_terminal(shell, ["dead", "list", "emails"], answer=b"")
    assert "\x1b[2J" not in colourful
    assert "\u202e" not in colourful


@pytest.mark.parametrize("body", [b"not json", b"\xff\x00\xfe", b'"\\ud800"', b"[" * 10_000, b"x" * 10_000])
def test_body_that_is_no_job_can_be_shown(shell: Shell, url: str, body: bytes) -> None:
    amqp.publish(url, "emails.dead", body, exchange="")
    shown = shell.run("dead", "show", "emails", "no-id-")
    assert shown.code == 0, shown.err
    assert f"body, {len(body)} bytes" in shown.out
    assert shell.run("dead", "show", "emails", "no-id-", "--json").code == 0


def test_what_cannot_be_is_one_line(shell: Shell, url: str) -> None:
    bury(url, 2)
    for arguments, code, complaint in (
        (["list", "nobody"], 1, "no queue 'nobody.dead'"),
        (["list", "no.body"], 78, "must be one word"),
        (["show", "emails", "zzz"], 1, "no dead letter in 'emails.dead' has the id 'zzz'"),
        (["replay", "emails", "zzz"], 1, "no dead letter in 'emails.dead' has the id 'zzz'"),
        (["replay", "emails", "--all", "--delay", "soon"], 78, "--delay must be"),
        (["replay", "emails", "--all", "--delay", "9000h"], 0, ""),
        (["replay", "emails", "--all", "--delay", "10000h"], 1, "beyond the longest"),
    ):
        result = shell.run("dead", *arguments)
        assert result.code == code, result.err
        assert complaint in result.err
        assert "Traceback" not in result.err
    away = shell.run("dead", "list", "emails", BROKERJOBS_URL="amqp://u:secret@127.0.0.1:9/")
    assert away.code == 69
    assert "127.0.0.1:9" in away.complaint
    assert "secret" not in away.err


async def test_second_reader_is_refused_in_one_line(shell: Shell, settings: Settings) -> None:
    async with walk(settings, "emails.dead", "test of"):
        refused = shell.run("dead", "replay", "emails", "--all")
    assert refused.code == 1
    assert "somebody else goes through 'emails.dead'" in refused.complaint


def test_ctrl_c_ends_a_replay_after_the_message_in_hand(shell: Shell, url: str) -> None:
    buried = bury(url, 4)
    replay = shell.start("dead", "replay", "emails", "--all", "--rate", "0.01")
    eventually(lambda: amqp.ready(url, "emails") == 1)
    replay.signal(signal.SIGINT)
    ended = replay.end()
    assert (ended.code, ended.out) == (
        130,
        "replayed 1 of 4 dead letters to emails; stopped with 3 not looked at\n",
    )
    eventually(lambda: amqp.ready(url, "emails.dead") == 3)
    assert sorted(ids(url, "emails") + ids(url, "emails.dead")) == sorted(buried)


def test_killed_replay_loses_nothing_and_the_next_one_ends_the_work(shell: Shell, url: str) -> None:
    buried = bury(url, 20)
    replay = shell.start("dead", "replay", "emails", "--all", "--rate", "20")
    eventually(lambda: amqp.ready(url, "emails") >= 5)
    replay.kill()
    eventually(lambda: amqp.ready(url, "emails") + amqp.ready(url, "emails.dead") >= 20)
    assert shell.run("dead", "replay", "emails", "--all", "--rate", "0").code == 0
    replayed = ids(url, "emails")
    assert set(replayed) == set(buried)
    assert len(replayed) <= 21, "at most the one between confirm and ack went twice"
    assert amqp.ready(url, "emails.dead") == 0


def test_help_of_each_verb_says_what_it_does(offline: Shell, tmp_path: Path) -> None:
    for verb in "list", "show", "replay", "drop":
        helped = offline.run("dead", verb, "--help")
        assert helped.code == 0
        assert "QUEUE" in helped.out
