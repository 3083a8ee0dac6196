"""A walk goes through a queue alone, sees each message once, and leaves what it does not ack."""

from __future__ import annotations

import pytest

from brokerjobs.amqp.connection import ConnectionLost
from brokerjobs.amqp.walk import WINDOW, walk
from brokerjobs.errors import QueueInUse, UnknownQueue
from brokerjobs.settings import Settings
from tests import amqp
from tests.waiting import eventually_async

KINDS = {
    "classic": {"x-queue-type": "classic"},
    "quorum": {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000},
}
MANY = 2 * WINDOW + 50


@pytest.fixture(params=KINDS)
def queue(request: pytest.FixtureRequest, url: str) -> str:
    """A queue with many numbered messages."""
    with amqp.channel(url) as channel:
        channel.queue_declare("box", durable=True, arguments=KINDS[request.param])
        channel.confirm_delivery()
        for number in range(MANY):
            channel.basic_publish("", "box", str(number).encode())
    return "box"


async def test_walk_sees_each_message_once_beyond_its_window_and_leaves_all(
    settings: Settings, url: str, queue: str
) -> None:
    async with walk(settings, queue, "test of") as through:
        seen = [int(delivery.body) async for delivery in through.deliveries()]
    assert through.present == MANY
    assert seen == list(range(MANY))
    await eventually_async(lambda: amqp.ready(url, queue) == MANY)


async def test_walk_removes_what_is_acked_and_nothing_else(settings: Settings, url: str, queue: str) -> None:
    async with walk(settings, queue, "test of") as through:
        async for delivery in through.deliveries():
            if int(delivery.body) % 3 == 0:
                await delivery.ack()
    kept = {number for number in range(MANY) if number % 3}
    await eventually_async(lambda: amqp.ready(url, queue) == len(kept))
    assert {int(found.body) for found in amqp.peek(url, queue)} == kept


async def test_walk_ends_after_as_many_as_it_may_see(settings: Settings, queue: str) -> None:
    async with walk(settings, queue, "test of") as through:
        assert len([delivery async for delivery in through.deliveries(7)]) == 7


async def test_walk_misses_nothing_that_the_broker_is_slow_to_deliver(
    settings: Settings, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brokerjobs.amqp.walk.DELIVERY_TIMEOUT", 0.0)
    async with walk(settings, queue, "test of") as through:
        assert [int(delivery.body) async for delivery in through.deliveries(20)] == [*range(20)]


async def test_walk_does_not_see_what_came_after_its_start(settings: Settings, url: str, queue: str) -> None:
    async with walk(settings, queue, "test of") as through:
        amqp.publish(url, queue, b"-1", exchange="")
        seen = {int(delivery.body) async for delivery in through.deliveries()}
    assert seen == set(range(MANY))


async def test_second_walk_is_refused_until_the_first_ends(settings: Settings, queue: str) -> None:
    async with walk(settings, queue, "test of"):
        with pytest.raises(QueueInUse, match="somebody else goes through 'box'"):
            async with walk(settings, queue, "test of"):
                pass
    async with walk(settings, queue, "test of", patience=5.0) as through:
        assert through.present == MANY


async def test_walk_is_refused_while_another_program_consumes(
    settings: Settings, url: str, queue: str
) -> None:
    with amqp.channel(url) as channel:
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume(queue, lambda *_: None)
        with pytest.raises(QueueInUse, match="1 consumer of another program"):
            async with walk(settings, queue, "test of"):
                pass


async def test_walk_through_a_missing_queue_says_so(settings: Settings, url: str) -> None:
    with pytest.raises(UnknownQueue, match="no queue 'nothing'"):
        async with walk(settings, "nothing", "test of"):
            pass


async def test_walk_through_an_empty_queue_ends_at_once(settings: Settings, url: str) -> None:
    with amqp.channel(url) as channel:
        channel.queue_declare("empty")
    async with walk(settings, "empty", "test of") as through:
        assert [delivery async for delivery in through.deliveries()] == []


async def test_walk_whose_queue_vanishes_says_so(settings: Settings, url: str, queue: str) -> None:
    async def walk_and_delete() -> None:
        async with walk(settings, queue, "test of") as through:
            async for _ in through.deliveries():
                with amqp.channel(url) as channel:
                    channel.queue_delete(queue)

    with pytest.raises(ConnectionLost, match="box"):
        await walk_and_delete()
