"""`pause`, `resume`, `cancel` and `workers` as an operator types them."""

from __future__ import annotations

import pytest

from tests.shell import Shell

EMAILS = """
from brokerjobs import Consumer
consumer = Consumer("emails")

@consumer.job()
async def welcome(user_id: int) -> None: ...
"""


@pytest.fixture
def shell(online: Shell) -> Shell:
    online.write("consumers/emails.py", EMAILS)
    return online


def test_operator_stops_and_looks(shell: Shell) -> None:
    worker = shell.consume("emails")

    shown = shell.run("workers")
    assert (shown.code, shown.err) == (0, "")
    head, row = shown.out.splitlines()
    assert head.split("\t") == ["worker", "queue", "job", "id", "attempt", "for"]
    assert row.split("\t")[1:3] == ["emails", "idle"]

    assert shell.run("pause", "emails", "--why", "maintenance").out == (
        "emails is paused; `brokerjobs resume emails` lets it go on\n"
    )
    worker.until("queue paused")
    assert shell.run("queues", "emails", "--json").json["queues"][0]["paused"] is True
    [state] = shell.run("workers", "--json").json
    assert "maintenance" in state["paused"]["emails"]["operator"]
    assert "by operator: maintenance" in shell.run("workers").out

    cancelled = shell.run("cancel", "7", "--wait", "0")
    assert (cancelled.code, cancelled.err) == (0, "")
    assert "no worker says that it runs it" in cancelled.out

    assert shell.run("resume", "emails").out == "emails goes on\n"
    worker.until("queue resumed")
    assert shell.run("resume", "emails").out == "emails was not paused\n"

    missing = shell.run("pause", "emials")
    assert (missing.code, missing.out) == (1, "")
    assert "there is no queue 'emials'" in missing.err
