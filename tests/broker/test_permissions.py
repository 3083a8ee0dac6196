"""The users that `brokerjobs topology permissions` makes: each can do its job, and is refused the rest."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pika
import pika.exceptions
import pytest

from brokerjobs import Client, Consumer, Retry, control, permissions, provision, topology
from brokerjobs import settings as settings_module
from brokerjobs.amqp import declare
from brokerjobs.amqp.connection import GRANT, Connection
from brokerjobs.dead_letters import DeadLetters
from brokerjobs.errors import AccessRefused
from brokerjobs.inspection import Watch
from brokerjobs.node.private import PrivateNode
from brokerjobs.permissions import Role
from brokerjobs.settings import Settings
from brokerjobs.topology import Names
from tests import amqp
from tests.conftest import StartWorker, management
from tests.waiting import eventually_async

NAMES = Names("shop")


class Users:
    """Made by the very commands, run in a shell.

    Args:
        node: where.
        vhost: likewise.
        folder: for their passwords.
    """

    roles = permissions.roles(NAMES, {"emails": ()})

    def __init__(self, node: PrivateNode, vhost: str, folder: Path) -> None:
        self._node = node
        self._vhost = vhost
        self._folder = folder

    def make(self, *roles: Role) -> None:
        environment = self._node._environment()
        environment["PATH"] = os.pathsep.join([str(self._node.installation.scripts), environment["PATH"]])
        script = "\n".join(["set -e", *permissions.commands(roles, self._vhost)])
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self._folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def remove(self) -> None:
        for role in self.roles:
            with suppress(HTTPError):
                management(self._node, "DELETE", f"/api/users/{role.user}")

    def url(self, who: str) -> str:
        password = (self._folder / f"shop-{who}.password").read_text().strip()
        return f"amqp://shop-{who}:{password}@127.0.0.1:{self._node.ports.amqp}/{self._vhost}"

    def settings(self, who: str, **options: Any) -> Settings:
        return settings_module.load(
            url=self.url(who), management_url=self._node.http_url, namespace="shop", **options
        )


@pytest.fixture
def users(node: PrivateNode, vhost: str, tmp_path: Path) -> Iterator[Users]:
    made = Users(node, vhost, tmp_path)
    yield made
    made.remove()


def consumer() -> Consumer:
    made = Consumer("emails", retry=Retry(delays=[0.125]))

    @made.job()
    async def welcome(user_id: int) -> None:
        if user_id == 13:
            raise ValueError

    return made


async def deploy(emails: Consumer, chosen: Settings, url: str) -> None:
    """As `topology apply` does; one job is published before there is its queue."""
    connection = await Connection.open(chosen, "test")
    await declare.apply(connection, topology.shared(NAMES), chosen)
    amqp.publish(url, "emails.welcome", b'{"user_id": 1}', exchange=NAMES.jobs)
    await provision.apply(connection, [emails], chosen)
    await connection.close()


async def test_each_user_can_do_its_job_and_is_refused_the_rest(
    users: Users, url: str, start_worker: StartWorker
) -> None:
    emails = consumer()
    users.make(users.roles[0])
    await deploy(emails, users.settings("deploy"), url)
    users.make(*users.roles[1:])
    await do_their_jobs(users, emails, url, start_worker)
    be_refused_the_rest(users)
    await be_told_what_is_missing(users, emails)


async def do_their_jobs(users: Users, emails: Consumer, url: str, start_worker: StartWorker) -> None:

    async with Client(settings=users.settings("publisher")) as client:
        await client.asend("emails.welcome", {"user_id": 2}, delay=0.125)
        await asyncio.to_thread(client.send, "emails.welcome", {"user_id": 3})
        for _ in range(3):
            await client.asend("emails.welcome", {"user_id": 13})

    running = await start_worker(
        emails, settings=users.settings("worker", topology="check", sweep_interval=0.25, metrics_port=0)
    )
    finished = running.metrics.registry.get_sample_value
    labels = {"queue": "emails", "job_name": "emails.welcome"}

    def count(outcome: str) -> float:
        return finished("brokerjobs_jobs_finished_total", {**labels, "outcome": outcome}) or 0

    for kind in "ready", "dead":  # a worker may look at both
        series = {"queue": "emails", "state": kind}
        await eventually_async(
            lambda series=series: finished("brokerjobs_queue_messages", series) is not None  # type: ignore[misc]
        )
    await eventually_async(lambda: (count("succeeded"), count("retried"), count("dead")) == (3, 3, 3))
    await eventually_async(lambda: amqp.ready(url, NAMES.dead("emails")) == 3)

    operator = users.settings("operator")
    dead = DeadLetters(operator, "emails")
    letters = (await dead.page()).letters
    assert len(letters) == 3
    assert (await dead.drop(limit=1)).done == 1
    assert (await dead.replay(limit=1)).done == 1
    await eventually_async(lambda: (count("retried"), count("dead")) == (4, 4))
    async with Watch(operator) as watch:
        seen = (await watch.look()).snapshot
    assert [(counts.queue, counts.dead) for counts in seen.queues] == [("emails", 2)]
    assert (seen.missing, seen.unrouted) == ("", 0)

    await control.pause(operator, "emails", "maintenance")
    await eventually_async(lambda: running._lanes[0].gate.is_paused)
    [state] = await control.workers(operator, wait=1.0)
    assert "maintenance" in state.paused["emails"]["operator"]
    assert await control.resume(operator, "emails")
    await eventually_async(lambda: not running._lanes[0].gate.is_paused)
    assert await control.cancel(operator, "7", wait=0.0) == []
    running.stop()


# What each may not, with a part of RabbitMQ's words; 3.10 does not say which kind of access is missing.
FORBIDDEN: dict[str, list[tuple[str, Callable[[Any], Any]]]] = {
    "deploy": [
        ("queue 'reports'", lambda channel: channel.queue_declare("reports")),
        ("exchange 'jobs'", lambda channel: channel.exchange_declare("jobs", "topic")),
    ],
    "publisher": [
        ("topic 'reports.daily'", lambda channel: channel.basic_publish("shop.jobs", "reports.daily", b"")),
        ("exchange 'amq.default'", lambda channel: channel.basic_publish("", "shop.emails", b"")),
        ("exchange 'shop.jobs.dead'", lambda channel: channel.basic_publish("shop.jobs.dead", "emails", b"")),
        ("exchange 'shop.jobs.v1.due'", lambda channel: channel.basic_publish("shop.jobs.v1.due", "x", b"")),
        (
            "exchange 'shop.jobs.control'",
            lambda channel: channel.basic_publish("shop.jobs.control", "x", b""),
        ),
        ("queue 'shop.emails'", lambda channel: channel.basic_get("shop.emails")),
        ("queue 'shop.emails'", lambda channel: channel.queue_purge("shop.emails")),
        ("queue 'shop.emails'", lambda channel: channel.queue_delete("shop.emails")),
        ("exchange 'shop.jobs'", lambda channel: channel.queue_bind("shop.emails", "shop.jobs", "#")),
        ("queue 'mine'", lambda channel: channel.queue_declare("mine", exclusive=True)),
    ],
    "worker": [
        ("queue 'shop.emails.dead'", lambda channel: channel.basic_get("shop.emails.dead")),
        ("queue 'shop.emails'", lambda channel: channel.queue_delete("shop.emails")),
        ("exchange 'shop.jobs'", lambda channel: channel.exchange_delete("shop.jobs")),
        ("queue 'shop.emails'", lambda channel: channel.queue_unbind("shop.emails", "shop.jobs", "emails.#")),
        ("queue 'shop.emails.paused'", lambda channel: channel.queue_declare("shop.emails.paused")),
        ("exchange 'amq.default'", lambda channel: channel.basic_publish("", "shop.emails", b"")),
    ],
    "operator": [
        ("queue 'shop.emails'", lambda channel: channel.basic_get("shop.emails")),
        ("exchange 'shop.jobs'", lambda channel: channel.basic_publish("shop.jobs", "emails.welcome", b"")),
        ("queue 'shop.emails.dead'", lambda channel: channel.queue_delete("shop.emails.dead")),
        ("exchange 'shop.jobs'", lambda channel: channel.queue_bind("shop.emails", "shop.jobs", "#")),
    ],
}


def be_refused_the_rest(users: Users) -> None:
    for who, attempts in FORBIDDEN.items():
        with amqp.connection(users.url(who)) as connection:
            for named, attempt in attempts:
                channel = connection.channel()
                channel.confirm_delivery()
                with pytest.raises(pika.exceptions.ChannelClosedByBroker, match=named) as caught:
                    attempt(channel)
                assert caught.value.reply_code == 403


async def be_told_what_is_missing(users: Users, emails: Consumer) -> None:
    publisher = users.settings("publisher")
    async with Client(settings=publisher) as client:
        with pytest.raises(AccessRefused, match=f"topic 'reports.daily'.*{GRANT}"):
            await client.asend("reports.daily", check_queue=False)
        with pytest.raises(AccessRefused, match=f"topic 'reports.daily'.*{GRANT}"):
            await asyncio.to_thread(client.send, "reports.daily", check_queue=False)
    connection = await Connection.open(users.settings("worker"), "test")
    with pytest.raises(AccessRefused, match=f"queue 'shop.emails.*{GRANT}"):
        await provision.ensure(connection, [emails], users.settings("worker", topology="declare"))
    await connection.close()
    with pytest.raises(AccessRefused, match=r"queue 'shop.emails.dead.reader'"):
        await DeadLetters(users.settings("worker"), "emails").page()
