"""A queue that takes jobs of certain users only, with four real users."""

from __future__ import annotations

import asyncio
from typing import Any

import pika.exceptions
import pytest

from brokerjobs import Client, Consumer, Retry, current_job
from brokerjobs import settings as settings_module
from brokerjobs.dead_letters import DeadLetters
from brokerjobs.node.private import PrivateNode
from brokerjobs.settings import Settings
from tests import amqp
from tests.conftest import StartWorker
from tests.management import user
from tests.waiting import eventually_async

ALL = {"configure": ".*", "write": ".*", "read": ".*"}


async def test_only_jobs_of_listed_users_run(
    node: PrivateNode, vhost: str, url: str, start_worker: StartWorker
) -> None:
    shop, worker, operator, mallory = (f"{vhost}-{who}" for who in ("shop", "worker", "operator", "mallory"))
    ran: list[tuple[str, int]] = []
    emails = Consumer("emails", retry=Retry(delays=[0.125]), require_user=[shop])

    @emails.job()
    async def welcome(name: str) -> None:
        ran.append((name, current_job().attempt))
        if name == "poor" and current_job().message.generation == 0:
            raise ValueError

    def signing(url: str, **options: Any) -> Settings:
        return settings_module.load(url=url, send_user_id=True, trusted_copiers=(worker, operator), **options)

    with (
        user(node, vhost, shop, **ALL) as shop_url,
        user(node, vhost, worker, **ALL) as worker_url,
        user(node, vhost, operator, **ALL) as operator_url,
        user(node, vhost, mallory, **ALL) as mallory_url,
    ):
        await start_worker(emails, settings=signing(worker_url))
        async with Client(settings=signing(shop_url)) as client:
            await client.asend("emails.welcome", {"name": "late"}, delay=0.25)
            await asyncio.to_thread(client.send, "emails.welcome", {"name": "blocking"})
            await client.asend("emails.welcome", {"name": "poor"})
        await eventually_async(lambda: amqp.ready(url, "emails.dead") == 1)
        dead = DeadLetters(signing(operator_url), "emails")
        assert (await dead.replay()).done == 1
        await eventually_async(lambda: len(ran) == 5)
        assert sorted(ran) == [("blocking", 1), ("late", 1), ("poor", 1), ("poor", 1), ("poor", 2)]

        # Unsigned, signed by somebody else, and signed with a note that it is shop's.
        async with Client(shop_url) as unsigned, Client(settings=signing(mallory_url)) as other:
            await unsigned.asend("emails.welcome", {"name": "unsigned"})
            await other.asend("emails.welcome", {"name": "other"})
        note = {"brokerjobs-user-id": shop}
        amqp.publish(mallory_url, "emails.welcome", b'{"name": "noted"}', headers=note)
        amqp.publish(mallory_url, "emails.welcome", b'{"name": "noted"}', headers=note, user_id=mallory)
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="user_id property set to"):
            amqp.publish(mallory_url, "emails.welcome", b'{"name": "lie"}', headers=note, user_id=worker)
        await eventually_async(lambda: amqp.ready(url, "emails.dead") == 4)

        # Replaying them does not make them anybody's.
        assert {letter.reason for letter in (await dead.page()).letters} == {"unverified"}
        assert (await dead.replay()).done == 4
        await eventually_async(lambda: amqp.ready(url, "emails.dead") == 4)
        letters = (await dead.page()).letters
        assert {(letter.reason, letter.message.generation) for letter in letters} == {("unverified", 1)}
        assert len(ran) == 5
