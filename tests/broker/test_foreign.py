"""Publishers that know nothing of brokerjobs: a C tool, Node, and the "Publish message" box of the management page.

None sends a header of ours, and their jobs run.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from brokerjobs import Client, Consumer, Message, current_job
from brokerjobs.node.private import PrivateNode
from tests import amqp, foreign
from tests.conftest import StartWorker
from tests.foreign import Program
from tests.management import publish_message
from tests.waiting import eventually_async

PUBLISH = """
const [url, key, body, properties] = process.argv.slice(1);
(async () => {
  const connection = await require('amqplib').connect(url);
  const channel = await connection.createConfirmChannel();
  channel.publish('jobs', key, Buffer.from(body), JSON.parse(properties));
  await channel.waitForConfirms();
  await connection.close();
})();
"""


class Publisher(Protocol):
    def __call__(self, key: str, body: str, /, **properties: Any) -> None: ...


@dataclass
class Tool:
    """`amqp-publish`; it knows few properties."""

    program: Program
    url: str

    def __call__(self, key: str, body: str, /, **properties: Any) -> None:
        headers = properties.pop("headers", {})
        assert not properties
        self.program.run(
            "--url", self.url, "--exchange", "jobs", "--routing-key", key, "--persistent", "--body", body,
            *(word for name, value in headers.items() for word in ("--header", f"{name}: {value}")),
        )  # fmt: skip


@dataclass
class Node:
    program: Program
    url: str

    def __call__(self, key: str, body: str, /, **properties: Any) -> None:
        self.program.run("-e", PUBLISH, self.url, key, body, json.dumps(properties))


@dataclass
class Box:
    """What the page sends when a person fills in a routing key and a payload, and clicks."""

    node: PrivateNode
    vhost: str

    def __call__(self, key: str, body: str, /, **properties: Any) -> None:
        assert publish_message(self.node, self.vhost, "jobs", key, body, **properties)


@pytest.fixture(scope="session")
def amqp_publish() -> Program:
    return foreign.amqp_publish()


@pytest.fixture(scope="session")
def amqplib() -> Program:
    return foreign.amqplib()


@pytest.fixture(params=["amqp-publish", "amqplib", "management"])
def publish(
    request: pytest.FixtureRequest, node: PrivateNode, vhost: str, url: str
) -> Callable[..., asyncio.Future[None]]:
    publisher: Publisher
    match request.param:
        case "amqp-publish":
            publisher = Tool(request.getfixturevalue("amqp_publish"), url)
        case "amqplib":
            publisher = Node(request.getfixturevalue("amqplib"), url)
        case _:
            publisher = Box(node, vhost)

    def in_thread(key: str, body: str, **properties: Any) -> asyncio.Future[None]:
        return asyncio.ensure_future(asyncio.to_thread(publisher, key, body, **properties))

    return in_thread


@pytest.fixture
def ran() -> list[tuple[int, str, Message]]:
    return []


@pytest.fixture
def emails(ran: list[tuple[int, str, Message]]) -> Consumer:
    emails = Consumer("emails")

    @emails.job()
    async def welcome(user_id: int = 0, locale: str = "en") -> None:
        ran.append((user_id, locale, current_job().message))

    return emails


async def test_a_bare_message_runs_with_its_arguments(
    publish: Callable[..., asyncio.Future[None]],
    emails: Consumer,
    ran: list[tuple[int, str, Message]],
    start_worker: StartWorker,
    url: str,
) -> None:
    await start_worker(emails)
    for body in '{"user_id": 7, "locale": "de"}', '[8, "grüezi"]', "":
        await publish("emails.welcome", body)

    await eventually_async(lambda: len(ran) == 3)
    assert sorted(run[:2] for run in ran) == [(0, "en"), (7, "de"), (8, "grüezi")]
    for *_, message in ran:
        assert (message.job, message.attempt, message.generation) == ("emails.welcome", 1, 0)
        assert len(message.id) == 36, "minted"
        assert message.timestamp == pytest.approx(time.time(), abs=60)
    await eventually_async(lambda: amqp.ready(url, "emails") == 0)
    assert amqp.ready(url, "emails.dead") == 0


async def test_a_foreign_wish_to_wait_is_honoured_once(
    publish: Callable[..., asyncio.Future[None]],
    emails: Consumer,
    ran: list[tuple[int, str, Message]],
    start_worker: StartWorker,
) -> None:
    await start_worker(emails)
    not_before = int(time.time() * 1000) + 2000
    await publish("emails.welcome", '{"user_id": 7}', headers={"brokerjobs-not-before": not_before})

    await eventually_async(lambda: bool(ran))
    assert time.time() * 1000 >= not_before - 1
    ((user_id, _, message),) = ran
    assert (user_id, message.attempt, message.hop) == (7, 1, 1)


async def test_a_foreign_message_that_fails_dies_readably(
    publish: Callable[..., asyncio.Future[None]], emails: Consumer, start_worker: StartWorker, url: str
) -> None:
    await start_worker(emails)
    await publish("emails.welcome", '{"user_id": "seven"}', headers={"tenant": "acme"})

    await eventually_async(lambda: amqp.ready(url, "emails.dead") == 1)
    (dead,) = amqp.peek(url, "emails.dead")
    assert dead.headers["brokerjobs-reason"] == "arguments"
    assert "user_id" in dead.headers["brokerjobs-error"]
    assert dead.headers["tenant"] == "acme"
    assert dead.properties.type == "emails.welcome"
    assert dead.properties.message_id
    assert json.loads(dead.body) == {"user_id": "seven"}


async def test_properties_of_other_clients_are_understood(
    emails: Consumer,
    ran: list[tuple[int, str, Message]],
    start_worker: StartWorker,
    amqplib: Program,
    url: str,
) -> None:
    await start_worker(emails)
    await asyncio.to_thread(
        Node(amqplib, url),
        "emails.anything",
        '{"user_id": 7}',
        type="emails.welcome",
        messageId="order-17",
        correlationId="cart-3",
        contentType="application/json; charset=utf-8",
        appId="shop",
        priority=9,
        timestamp=1_700_000_000,
        headers={"tenant": "acme", "weight": 1.5, "tags": ["a", 1], "deep": {"x": None}},
    )

    await eventually_async(lambda: bool(ran))
    ((_, _, message),) = ran
    assert (message.job, message.routing_key) == ("emails.welcome", "emails.anything")
    assert (message.id, message.correlation_id, message.app_id) == ("order-17", "cart-3", "shop")
    assert (message.priority, message.timestamp) == (9, 1_700_000_000)
    assert message.headers["tenant"] == "acme"


async def test_without_a_priority_it_has_none(
    publish: Callable[..., asyncio.Future[None]],
    client: Client,
    emails: Consumer,
    ran: list[tuple[int, str, Message]],
    start_worker: StartWorker,
) -> None:
    await start_worker(emails)
    await publish("emails.welcome", "{}")
    await client.asend("emails.welcome")

    await eventually_async(lambda: len(ran) == 2)
    assert [message.priority for *_, message in ran] == [None, 4]
