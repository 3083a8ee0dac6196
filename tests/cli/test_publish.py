"""`brokerjobs publish`: what reaches the queue, and what is refused before it is sent."""

from __future__ import annotations

import json
import socket
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pika
import pytest

from tests import amqp
from tests.conftest import one_version
from tests.shell import PATIENCE, Result, Shell
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(300)

EMAILS = "from brokerjobs import Consumer\nconsumer = Consumer('emails', bind=['*.created'])\n"


@pytest.fixture
def shop(online: Shell, url: str) -> Shell:
    """A shell whose broker has the queue `emails`, and nothing that would take long to declare."""
    with amqp.channel(url) as channel:
        channel.exchange_declare("jobs", exchange_type="topic", durable=True)
        channel.queue_declare("emails", durable=True, arguments={"x-max-priority": 9})
        for key in "emails.#", "*.created":
            channel.queue_bind("emails", "jobs", key)
    return online


@pytest.fixture
def schedule(online: Shell) -> Shell:
    """A shell whose broker has the delay levels too."""
    online.write("consumers/emails.py", EMAILS)
    applied = online.run("topology", "apply")
    assert applied.code == 0, applied.err
    return online


def found(url: str) -> amqp.Found:
    """The one message that is in the queue."""
    eventually(lambda: amqp.ready(url, "emails") == 1, timeout=PATIENCE, what="the message is in the queue")
    (message,) = amqp.peek(url, "emails")
    return message


def test_job_with_all_its_options_is_in_the_queue(shop: Shell, url: str) -> None:
    began = time.time()
    done = shop.run(
        *("publish", "emails.welcome", '{"user_id": 7, "name": "Zoë"}', "--priority", "9", "--expires", "1h"),
        *("--id", "order-7", "--header", "tenant=blue", "--header", "query=a=b", "--json"),
    )
    assert (done.code, done.err) == (0, "")
    assert done.json == {"id": "order-7", "job": "emails.welcome"}

    message = found(url)
    assert json.loads(message.body) == {"user_id": 7, "name": "Zoë"}
    assert message.routing_key == "emails.welcome"
    properties = message.properties
    assert (properties.message_id, properties.type) == ("order-7", "emails.welcome")
    assert (properties.priority, properties.delivery_mode) == (9, pika.DeliveryMode.Persistent.value)
    assert properties.content_type == "application/json"
    assert (message.headers["tenant"], message.headers["query"]) == ("blue", "a=b")
    expires = message.headers["brokerjobs-not-after"] / 1000
    assert began + 3600 <= expires + 0.001 <= time.time() + 3600


@one_version
def test_job_id_alone_is_printed(shop: Shell, url: str) -> None:
    done = shop.run("publish", "emails.welcome")
    assert (done.code, done.err) == (0, "")
    message = found(url)
    assert done.out == message.properties.message_id + "\n"
    assert message.body == b"{}"
    assert message.properties.priority == 4


@one_version
def test_delayed_job_arrives_when_it_is_due(schedule: Shell, url: str) -> None:
    earliest = time.time() + 1
    done = schedule.run("publish", "emails.welcome", "--delay", "1s")
    assert (done.code, done.err) == (0, "")
    message = found(url)
    assert time.time() >= earliest - 0.001
    assert message.headers["brokerjobs-due"] >= earliest * 1000 - 1


@one_version
def test_job_for_a_time_waits_for_that_time(schedule: Shell, url: str) -> None:
    at = datetime.now(UTC) + timedelta(hours=1)
    done = schedule.run("publish", "emails.welcome", "--at", at.isoformat())
    assert (done.code, done.err) == (0, "")
    (waiting,) = amqp.peek(url, "jobs.v1.delay.14")  # 2^14 eighths of a second are the most of an hour
    assert waiting.properties.message_id == done.out.strip()
    assert abs(waiting.headers["brokerjobs-due"] - at.timestamp() * 1000) <= 1
    assert amqp.ready(url, "emails") == 0


@pytest.mark.parametrize("at", ["2020-01-01T00:00:00Z", "2020-01-01"], ids=["zone", "local"])
@one_version
def test_time_that_has_passed_is_now(shop: Shell, url: str, at: str) -> None:
    assert shop.run("publish", "emails.welcome", "--at", at).code == 0
    assert amqp.ready(url, "emails") == 1


@pytest.mark.parametrize("source", ["-", "@arguments.json"])
@one_version
def test_arguments_come_from_standard_input_or_a_file(shop: Shell, url: str, source: str) -> None:
    text = b'{"text": "a \\"quoted\\" text\\nof two lines"}\n'
    (shop.folder / "arguments.json").write_bytes(text)
    done = shop.run("publish", "emails.welcome", source, stdin=text if source == "-" else b"")
    assert (done.code, done.err) == (0, "")
    assert json.loads(found(url).body) == {"text": 'a "quoted" text\nof two lines'}


@pytest.mark.parametrize("source", ["-", "@body"])
@one_version
def test_raw_bytes_are_sent_as_they_are(shop: Shell, url: str, source: str) -> None:
    body = bytes(range(256))
    (shop.folder / "body").write_bytes(body)
    done = shop.run("publish", "emails.import", source, "--raw", stdin=body if source == "-" else b"")
    assert (done.code, done.err) == (0, "")
    message = found(url)
    assert message.body == body
    assert message.properties.content_type == "application/octet-stream"


@one_version
def test_event_is_routed_by_its_topic_without_a_queue_of_that_name(shop: Shell, url: str) -> None:
    refused = shop.run("publish", "users.created", "{}")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.count("\n") == 1
    assert "has no queue 'users', so nobody would run the job" in refused.complaint
    assert "brokerjobs topology apply" in refused.complaint

    assert shop.run("publish", "users.created", "{}", "--no-check").code == 0
    assert found(url).routing_key == "users.created"


@one_version
def test_namespace_keeps_deployments_apart(shop: Shell, url: str) -> None:
    assert "no queue 'blue.emails'" in shop.run("publish", "emails.welcome", "--namespace", "blue").complaint
    with amqp.channel(url) as channel:
        channel.exchange_declare("blue.jobs", exchange_type="topic", durable=True)
        channel.queue_declare("blue.emails", durable=True)
        channel.queue_bind("blue.emails", "blue.jobs", "emails.#")
    assert shop.run("publish", "emails.welcome", "--namespace", "blue").code == 0
    assert (amqp.ready(url, "blue.emails"), amqp.ready(url, "emails")) == (1, 0)


@one_version
def test_broker_without_our_exchanges_is_a_clear_refusal(online: Shell) -> None:
    for options in (), ("--no-check",), ("--no-check", "--delay", "1s"):
        done = online.run("publish", "emails.welcome", *options)
        assert (done.code, done.out) == (1, ""), done.err
        assert "Traceback" not in done.err
        assert "brokerjobs topology apply" in done.complaint


# -- refused before anything is sent


def refused(shell: Shell, *arguments: str, stdin: bytes = b"") -> str:
    """What is said about bad input; there is no broker that could be asked."""
    done: Result = shell.run("publish", *arguments, stdin=stdin, BROKERJOBS_URL="amqp://127.0.0.1:1/")
    assert (done.code, done.out) == (2, ""), done.err
    assert done.err.startswith("Usage: brokerjobs publish")
    assert done.complaint.startswith("brokerjobs: ")
    assert "Traceback" not in done.err
    return done.complaint


@pytest.mark.parametrize(
    "arguments",
    ['{"user_id": 7', "user_id=7", "{'user_id': 7}", "7", '"text"', "[7]", '{"a": NaN}'],
)
def test_arguments_must_be_a_json_object(offline: Shell, arguments: str) -> None:
    assert '{"user_id": 7}' in refused(offline, "emails.welcome", arguments)


def test_bytes_that_are_no_text_need_raw(offline: Shell) -> None:
    assert '{"user_id": 7}' in refused(offline, "emails.welcome", "-", stdin=b"\xff\xfe")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--priority", "10"), "priority must be 0 to 9"),
        (("--priority", "high"), "--priority"),
        (("--delay", "soon"), "delay must be seconds"),
        (("--delay", "-5"), "delay must be a finite duration of 0 or more"),
        (("--expires", "never"), "expires must be seconds"),
        (("--at", "tomorrow"), "--at takes a time such as"),
        (("--at", "2030-01-01", "--delay", "1s"), "either delay or at"),
        (("--header", "tenant"), "--header takes NAME=TEXT, not 'tenant'"),
        (("--header", "=blue"), "--header takes NAME=TEXT"),
        (("--header", "x-death=1"), "'x-death' is not yours"),
        (("--id", ""), "id must be a text of 1 to 255 bytes"),
    ],
    ids=lambda value: "=".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_option_that_cannot_be_is_named(offline: Shell, options: tuple[str, ...], said: str) -> None:
    assert said in refused(offline, "emails.welcome", "{}", *options)


@pytest.mark.parametrize("job", ["emails", "emails.", "Emails.welcome", "", ".welcome"])
def test_job_needs_a_queue_and_a_name(offline: Shell, job: str) -> None:
    assert "a job is named like emails.welcome" in refused(offline, job, "{}")


def test_file_that_cannot_be_read_is_named(offline: Shell, tmp_path: Path) -> None:
    assert "cannot read no-such.json: No such file" in refused(offline, "emails.welcome", "@no-such.json")
    assert "Is a directory" in refused(offline, "emails.welcome", f"@{tmp_path}")


def test_body_above_the_limit_is_refused(offline: Shell) -> None:
    body = json.dumps({"text": "x" * 2_000_000}).encode()
    done = offline.run("publish", "emails.welcome", "-", stdin=body)
    assert (done.code, done.out) == (1, "")
    assert "above the limit of 1,048,576" in done.complaint


def test_no_broker_is_exit_code_69(offline: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closing:
        port = closing.getsockname()[1]
    done = offline.run(
        "publish",
        "emails.welcome",
        BROKERJOBS_URL=f"amqp://jane:geheim@127.0.0.1:{port}/",
        BROKERJOBS_PUBLISH_TIMEOUT="500ms",
    )
    assert (done.code, done.out) == (69, "")
    assert done.err.count("\n") == 1
    assert f"127.0.0.1:{port}" in done.err
    assert "geheim" not in done.err


@one_version
def test_wrong_password_is_exit_code_78(online: Shell, url: str) -> None:
    done = online.run("publish", "emails.welcome", BROKERJOBS_URL=url.replace("guest:guest", "jane:geheim"))
    assert (done.code, done.out) == (78, ""), done.err
    assert "wrong name or password" in done.complaint
    assert "geheim" not in done.err
