"""The permissions that docs/operations.md names are enough for each kind of program."""

from __future__ import annotations

import re

import pytest

from brokerjobs import Client, Consumer, Retry, provision, topology
from brokerjobs import settings as settings_module
from brokerjobs.amqp import declare
from brokerjobs.amqp.connection import Connection
from brokerjobs.dead_letters import DeadLetters
from brokerjobs.node.private import PrivateNode
from brokerjobs.settings import Settings
from brokerjobs.topology import Names
from tests import amqp
from tests.conftest import StartWorker
from tests.management import user
from tests.pages import ROOT
from tests.waiting import eventually_async

ROW = re.compile(r"^\| (.+?) \| `(.+?)` \| `(.+?)` \| `(.+?)` \|$", re.MULTILINE)


def documented(who: str) -> dict[str, str]:
    """The permissions that the page gives to a kind of program."""
    rows = ROW.findall((ROOT / "docs" / "operations.md").read_text())
    (row,) = (row for row in rows if row[0].startswith(who))
    return {
        name: cell.replace("\\|", "|")
        for name, cell in zip(("configure", "write", "read"), row[1:], strict=True)
    }


@pytest.fixture
async def emails(settings: Settings) -> Consumer:
    """A consumer whose queue somebody else has declared."""
    consumer = Consumer("emails", retry=Retry(delays=[0.125]))

    @consumer.job()
    async def welcome(user_id: int) -> None:
        if user_id == 13:
            raise ValueError

    connection = await Connection.open(settings, "test")
    await declare.apply(connection, topology.shared(Names()), settings)
    await provision.apply(connection, [consumer], settings)
    await connection.close()
    return consumer


async def test_documented_permissions_are_enough(
    node: PrivateNode, vhost: str, url: str, emails: Consumer, start_worker: StartWorker
) -> None:
    with (
        user(node, vhost, f"{vhost}-publisher", **documented("publisher")) as publisher,
        user(node, vhost, f"{vhost}-worker", **documented('worker with `topology = "check"')) as worker,
        user(node, vhost, f"{vhost}-person", **documented("`brokerjobs dead`")) as person,
    ):
        async with Client(publisher) as client:
            await client.asend("emails.welcome", {"user_id": 7}, delay=0.125)
            await client.asend("emails.welcome", {"user_id": 13})

        running = await start_worker(emails, settings=settings_module.load(url=worker, topology="check"))

        await eventually_async(lambda: amqp.ready(url, "emails.dead") == 1)
        progress = await DeadLetters(settings_module.load(url=person), "emails").replay()
        assert progress.done == 1
        await eventually_async(lambda: amqp.ready(url, "emails.dead") == 1)
        finished = running.metrics.registry.get_sample_value
        labels = {"queue": "emails", "job": "emails.welcome"}
        assert finished("brokerjobs_jobs_finished_total", {**labels, "outcome": "succeeded"}) == 1
        assert finished("brokerjobs_jobs_finished_total", {**labels, "outcome": "retried"}) == 2
        running.stop()
