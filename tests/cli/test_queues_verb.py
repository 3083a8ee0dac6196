"""`brokerjobs queues` as a person at a shell uses it."""

from __future__ import annotations

import pytest

from brokerjobs.node.private import PrivateNode
from tests import amqp
from tests.shell import Shell
from tests.waiting import eventually

EMAILS = """
from brokerjobs import Consumer
consumer = Consumer("emails")

@consumer.job()
async def welcome(user_id: int) -> None: ...
"""


@pytest.fixture
def shell(online: Shell, node: PrivateNode) -> Shell:
    online.write("consumers/emails.py", EMAILS)
    online.env["BROKERJOBS_MANAGEMENT_URL"] = node.http_url
    return online


def test_queues_shows_what_waits_where(shell: Shell, url: str) -> None:
    undeclared = shell.run("queues")
    assert undeclared.code == 0, undeclared.err
    assert "emails\tnot declared" in undeclared.out
    assert "nothing is declared yet" in undeclared.out

    assert shell.run("topology", "apply").code == 0
    for options in [], [], ["--delay", "1h"]:
        assert shell.run("publish", "emails.welcome", '{"user_id": 7}', *options).code == 0
    amqp.publish(url, "emails", b"{}", exchange="jobs.dead")
    amqp.publish(url, "nobody.listens", b"{}")

    shown = shell.run("queues")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.splitlines() == [
        "queue\tready\tunacked\tconsumers\tdead\tpaused\toldest",
        "emails\t2\t0\t0\t1\tno\t",
        "waiting   1  retries and scheduled jobs of all queues, by delay level: 34m8s 1",
        "unrouted  1  published when no queue was bound for them; a worker that binds their keys takes them",
    ]
    found = shell.run("queues", "emails", "--json").json
    assert found["queues"] == [
        {
            "queue": "emails", "ready": 2, "unacked": 0, "consumers": 0, "dead": 1, "paused": False,
            "oldest_seconds": None,
        }
    ]  # fmt: skip
    assert found["waiting"] == {"total": 1, "levels": [{"delay_seconds": 2048.0, "waiting": 1}]}
    assert (found["unrouted"], found["missing"]) == (1, "")


def test_queues_counts_workers(shell: Shell) -> None:
    shell.consume("emails")
    (emails,) = shell.run("queues", "emails", "--json").json["queues"]
    assert (emails["ready"], emails["consumers"]) == (0, 1)

    shown = shell.run("queues", "emails", "--rates", "500ms")
    assert (shown.code, shown.err) == (0, "")
    head, row, *_ = shown.out.splitlines()
    assert head.split("\t")[6:] == ["oldest", "arrivals", "done", "drain"]
    assert row.split("\t")[6:] == ["0s", "0.0/s", "0.0/s", "0s"]
    (emails,) = shell.run("queues", "emails", "--rates", "500ms", "--json").json["queues"]
    assert (emails["oldest_seconds"], emails["done_per_second"], emails["seconds_to_drain"]) == (
        0.0,
        0.0,
        0.0,
    )


def test_queues_needs_no_consumers_here(shell: Shell, url: str) -> None:
    assert shell.run("topology", "apply").code == 0
    (emails,) = shell.run("queues", "--consumers", "nowhere", "--json").json["queues"]
    assert emails["queue"] == "emails"


def test_queues_without_the_management_api_says_in_one_line_what_is_missing(shell: Shell, url: str) -> None:
    assert shell.run("topology", "apply").code == 0
    shown = shell.run("queues", "--management-url", "http://127.0.0.1:9")
    assert shown.code == 0
    assert "emails\t0\t\t0\t0\tno\t0s" in shown.out.splitlines()
    assert len(shown.err.splitlines()) == 1
    assert "nothing answers at http://127.0.0.1:9" in shown.err


def test_queues_that_cannot_be_is_one_line(shell: Shell) -> None:
    assert shell.run("topology", "apply").code == 0
    for arguments, code, complaint in (
        (["nobody"], 1, "there is no queue 'nobody'"),
        (["--rates", "0s"], 78, "--rates must be 500ms or more"),
        (["no.body"], 78, "must be one word"),
        (
            ["--management-url", "ftp://x:secret@y"],
            78,
            "management_url (--management-url): must look like http://",
        ),
        (["--url", "amqp://u:secret@127.0.0.1:9/"], 69, "127.0.0.1:9"),
    ):
        refused = shell.run("queues", *arguments)
        assert refused.code == code, refused.err
        assert complaint in refused.complaint
        assert "secret" not in refused.err
    eventually(lambda: "emails" in shell.run("queues", "nobody").complaint)
