"""`brokerjobs top` in a pipe, as JSON, and on a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator

import pytest

from tests.shell import COMMAND, PATIENCE, Shell
from tests.waiting import eventually

EMAILS = """
from brokerjobs import Consumer, Reject
import asyncio
consumer = Consumer("emails")

@consumer.job()
async def welcome(user_id: int) -> None:
    if user_id == 13:
        raise Reject("no such user")
    await asyncio.Event().wait()
"""


@pytest.fixture
def shell(online: Shell) -> Shell:
    online.write("consumers/emails.py", EMAILS)
    online.env["BROKERJOBS_MANAGEMENT_URL"] = "http://127.0.0.1:9"
    return online


class Terminal:
    """A command on a terminal of 80 columns and 24 lines."""

    def __init__(self, shell: Shell, *arguments: str) -> None:
        self._master, self._slave = pty.openpty()
        self.resize(80, 24)
        self.before = termios.tcgetattr(self._slave)
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=shell.folder,
            env={
                **{k: v for k, v in shell.env.items() if k != "COLUMNS"},
                "TERM": "xterm",
                "LC_ALL": "C.UTF-8",
            },
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            process_group=0,  # in this session: who has nobody to continue them, Linux does not let stop
        )
        os.set_blocking(self._master, False)
        self.written = ""

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def reads(self, text: str) -> bool:
        """Whether the terminal was told this by now."""
        try:
            while chunk := os.read(self._master, 65536):
                self.written += chunk.decode(errors="replace")
        except BlockingIOError:
            pass
        return text in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.written)

    def until(self, text: str) -> None:
        eventually(lambda: self.reads(text), timeout=PATIENCE, what=text)

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    @property
    def is_as_it_was(self) -> bool:
        self.reads("")
        shows_cursor = self.written.rfind("\x1b[?25h") > self.written.rfind("\x1b[?25l")
        left_screen = self.written.rfind("\x1b[?1049l") > self.written.rfind("\x1b[?1049h") >= 0
        return shows_cursor and left_screen and termios.tcgetattr(self._slave) == self.before

    @property
    def is_stopped(self) -> bool:
        pid, status = os.waitpid(self.process.pid, os.WNOHANG | os.WUNTRACED)
        return bool(pid) and os.WIFSTOPPED(status)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self._slave)


def test_top_shows_queues_workers_jobs_and_failures(shell: Shell) -> None:
    worker = shell.consume("emails")
    for user in 7, 13:
        assert shell.run("publish", "emails.welcome", json.dumps({"user_id": user})).code == 0
    worker.until("job dead")

    plain = shell.run("top", "--once", "--interval", "500ms")
    assert plain.code == 0, plain.err
    assert "\x1b" not in plain.out
    kinds = [line.split()[0] for line in plain.out.splitlines()]
    assert kinds == ["look", "queue", "worker", "job", "failure", "missing"]
    assert "queue emails ready=0 running=1/10 consumers=1 dead=1 oldest=0s arrivals=0.0/s" in plain.out
    assert "state=dead" in plain.out
    assert "error=Reject: no such user" in plain.out
    assert "user_id" not in plain.out  # no arguments

    told = shell.start("top", "emails", "--json", "--interval", "500ms")
    eventually(lambda: told.out.count("\n") >= 3, timeout=PATIENCE, what="three looks")
    told.signal(signal.SIGINT)
    assert told.end().code == 130
    *_, last = (json.loads(line) for line in told.out.splitlines()[:3])
    assert (last["queues"][0]["queue"], last["queues"][0]["done_per_second"]) == ("emails", 0.0)
    assert last["workers"][0]["running"][0]["job"] == "emails.welcome"
    assert last["failures"][0]["outcome"] == "dead"


@pytest.fixture
def terminals(shell: Shell) -> Iterator[list[Terminal]]:
    """Three that watch an empty namespace."""
    assert shell.run("topology", "apply").code == 0
    opened = [Terminal(shell, "top", "--interval", "500ms") for _ in range(3)]
    yield opened
    for terminal in opened:
        terminal.close()


def test_top_always_leaves_the_terminal_as_it_was(terminals: list[Terminal]) -> None:
    for terminal in terminals:
        terminal.until("none lately")
    first, second, third = terminals
    first.press("p")
    first.until("held")
    first.resize(120, 30)
    first.press("p")
    first.until("fail/s")  # which a wide one has room for

    second.process.send_signal(signal.SIGTSTP)
    eventually(lambda: second.is_stopped, timeout=PATIENCE, what="stop")
    assert second.is_as_it_was
    second.written = ""
    second.process.send_signal(signal.SIGCONT)
    second.until("none lately")
    second.press("p")
    second.until("held")

    first.press("q")
    second.process.send_signal(signal.SIGINT)
    third.process.send_signal(signal.SIGTERM)
    assert [terminal.process.wait(timeout=PATIENCE) for terminal in terminals] == [0, 130, 130]
    assert all(terminal.is_as_it_was for terminal in terminals)


def test_top_that_cannot_be_is_one_line(shell: Shell) -> None:
    assert shell.run("topology", "apply").code == 0
    for arguments, code, complaint in (
        (["nobody"], 1, "there is no queue 'nobody'"),
        (["--interval", "0"], 78, "--interval must be 500ms or more"),
        (["--url", "amqp://u:secret@127.0.0.1:9/"], 69, "127.0.0.1:9"),
    ):
        refused = shell.run("top", *arguments)
        assert (refused.code, refused.out) == (code, "")
        assert complaint in refused.complaint
        assert "secret" not in refused.err
