"""A password, and an argument, that must be seen nowhere: in no output of any verb, no log, no list of processes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from brokerjobs import Client, Consumer, Worker
from brokerjobs import settings as settings_module
from brokerjobs.errors import BrokerJobsError, ConfigurationError
from brokerjobs.node.private import PrivateNode
from tests.conftest import management, one_version
from tests.management import user
from tests.shell import Result, Shell

pytestmark = pytest.mark.timeout(300)

PASSWORD = "Zeisig-Pfeffer-7731"
ARGUMENT = "Amsel-Estragon-4411"
ALL = {"configure": ".*", "write": ".*", "read": ".*"}
CONSUMER = """
from brokerjobs import Consumer

consumer = Consumer("emails")

@consumer.job()
async def welcome(token: str) -> None:
    if token == "no":
        raise ValueError("not this one")

@consumer.job()
def goodbye(token: str) -> None: ...
"""
ID = "0" * 8


@pytest.fixture
def url(node: PrivateNode, vhost: str) -> Iterator[str]:
    """Of a user with the password."""
    with user(node, vhost, f"{vhost}-jane", **ALL) as found:
        name = f"{vhost}-jane".encode()
        management(
            node,
            "PUT",
            f"/api/users/{name.decode()}",
            f'{{"password": "{PASSWORD}", "tags": "management"}}'.encode(),
        )
        yield found.replace(":secret@", f":{PASSWORD}@")


def seen_by_others() -> str:
    """The command lines of all processes, which any user may read."""
    texts = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            texts.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return "\n".join(texts)


@one_version
def test_no_verb_shows_a_password_nor_an_argument(online: Shell, url: str, node: PrivateNode) -> None:
    online.write("consumers/emails.py", CONSUMER)
    secret = online.write("secret", f"{url}\n")
    del online.env["BROKERJOBS_URL"]
    given = {
        "BROKERJOBS_URL_FILE": str(secret),
        "BROKERJOBS_MANAGEMENT_URL": node.http_url,
        "BROKERJOBS_LOG_LEVEL": "debug",
    }
    said: list[Result] = []

    def run(*words: str, code: int = 0, **env: str) -> Result:
        done = online.run(*words, **{**given, **env})
        assert done.code == code, (words, done)
        said.append(done)
        return done

    run("topology", "apply")
    for token in ARGUMENT, "no":
        online.write("arguments.json", f'{{"token": "{token}"}}')
        run("publish", "emails.welcome", "@arguments.json", "--expires", "1s" if token == "no" else "1h")
    run("consume", "--burst", "--log-format", "json")
    run("publish", "nobody.knows", code=1)
    run("publish", "emails.goodbye", "{", code=2)
    run("queues")
    run("config")
    run("config", "--json", BROKERJOBS_TLS_KEY_PASSWORD=PASSWORD)
    run("topology", "check")
    run("topology", "permissions", "--json")
    run("dead", "list", "emails")
    run("dead", "show", "emails", ID, code=1)
    run("pause", "emails")
    worker = online.start("consume", "emails", **given)
    worker.until("queue paused")
    run("workers", "--wait", "1")
    assert PASSWORD not in seen_by_others()
    run("resume", "emails")
    worker.kill()
    said.append(worker.end())

    online.write("secret", url.replace(f":{PASSWORD}@", f":{PASSWORD}x@"))
    run("queues", code=78)
    run("consume", "--log-format", "console", code=78)
    run("publish", "emails.welcome", "@arguments.json", code=78)
    online.write("secret", url.replace("amqp:", "http:"))
    run("config", code=78)
    for done in said:
        assert PASSWORD not in done.out + done.err, done
        assert ARGUMENT not in done.out + done.err, done


@one_version
async def test_neither_client_logs_the_password_even_when_told_to_log_all(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    consumer = Consumer("emails")

    @consumer.job()
    async def welcome(token: str) -> None: ...

    async def use(url: str) -> None:
        chosen = settings_module.load(url=url, publish_timeout=10)
        worker = Worker([consumer], chosen, burst=True, start_timeout=5)
        async with Client(settings=chosen) as client:
            assert PASSWORD not in f"{chosen!r} {client!r} {worker!r} {vars(client)} {vars(worker)}"
            await worker.run()
            await asyncio.to_thread(client.send, "emails.welcome", {"token": ARGUMENT})
            await client.asend("emails.welcome", {"token": ARGUMENT})

    caplog.set_level(logging.DEBUG)
    for name in "aiormq", "aio_pika", "pika":
        caplog.set_level(logging.DEBUG, name)
    await use(url)
    wrong = url.replace(f":{PASSWORD}@", f":{PASSWORD}x@")
    with pytest.raises(ConfigurationError, match="wrong name or password") as caught:
        await use(wrong)
    errors: list[BaseException] = [caught.value]
    async with Client(wrong) as client:
        for sending in asyncio.to_thread(client.send, "emails.welcome"), client.asend("emails.welcome"):
            with pytest.raises(BrokerJobsError) as failed:
                await sending
            errors.append(failed.value)

    assert "aiormq" in {record.name.partition(".")[0] for record in caplog.records}
    assert "pika" in {record.name.partition(".")[0] for record in caplog.records}
    assert PASSWORD not in caplog.text
    assert PASSWORD not in "".join(f"{error!r} {error.__cause__!r} {error.args}" for error in errors)
