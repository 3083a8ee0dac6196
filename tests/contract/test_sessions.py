"""One suite over both ways that deliveries take: from the stream itself, and through the client library."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from brokerjobs.amqp.connection import ConnectionLost
from brokerjobs.amqp.delivery import Delivery
from brokerjobs.amqp.session import Session
from brokerjobs.settings import Settings
from tests import amqp
from tests.conftest import BY_LIBRARY
from tests.waiting import eventually_async

pytestmark = pytest.mark.broker


class Consuming:
    """A session with one queue, and what it was given."""

    def __init__(self, session: Session, url: str, queue: str) -> None:
        self.session = session
        self.url = url
        self.queue = queue
        self.came: list[Delivery] = []

    async def start(self, prefetch: int = 50) -> None:
        await self.session.consume(self.queue, self.queue, prefetch, self.came.append)

    async def get(self, count: int) -> list[Delivery]:
        await eventually_async(lambda: len(self.came) >= count, what=f"{count} deliveries")
        return self.came

    async def publish(self, *bodies: bytes, **properties: object) -> None:
        for body in bodies:
            await asyncio.to_thread(amqp.publish, self.url, self.queue, body, exchange="", **properties)

    async def until_ready(self, count: int) -> None:
        await eventually_async(lambda: amqp.ready(self.url, self.queue) == count, what=f"{count} are ready")


@pytest.fixture(params=["from the stream", "from the stream, one answer each", BY_LIBRARY])
async def consuming(request: pytest.FixtureRequest, settings: Settings, url: str) -> AsyncIterator[Consuming]:
    lane = settings.model_copy(
        update={"fast_lane": "stream" in request.param, "ack_together": "one answer" not in request.param}
    )
    queue = f"q-{uuid.uuid4().hex[:6]}"
    with amqp.channel(url) as channel:
        channel.queue_declare(queue, durable=True)
    session = await Session.open(lane, "test")
    yield Consuming(session, url, queue)
    await session.close()


async def test_messages_of_any_size_arrive_as_they_were_sent(consuming: Consuming) -> None:
    bodies = [b"", b"{}", b"x" * 131_064, b"y" * 131_065, bytes(range(256)) * 4096]
    await consuming.publish(
        *bodies, message_id="a-1", type="emails.welcome", headers={"n": 7, "s": "é"}, priority=3
    )
    await consuming.start()

    came = await consuming.get(len(bodies))

    assert [delivery.body for delivery in came] == bodies
    first = came[0]
    assert (first.exchange, first.routing_key, first.queue) == ("", consuming.queue, consuming.queue)
    assert not first.redelivered
    properties = {name: value for name, value in first.properties.items() if value is not None}
    assert properties == {
        "message_id": "a-1", "type": "emails.welcome", "headers": {"n": 7, "s": "é"}, "priority": 3, "delivery_mode": 2,
    }  # fmt: skip


async def test_what_is_settled_is_gone_and_the_rest_comes_back(consuming: Consuming) -> None:
    await consuming.publish(*(str(number).encode() for number in range(12)))
    await consuming.start()
    came = list(await consuming.get(12))

    for number in (0, 1, 2, 7, 5, 4):  # in a row, out of order, with gaps
        await came[number].ack()
    await came[9].requeue()
    await eventually_async(lambda: len(consuming.came) == 13, what="what was given back comes again")
    again = consuming.came[12]
    assert (again.body, again.redelivered) == (b"9", True)
    await again.ack()
    await consuming.session.close()

    await consuming.until_ready(5)
    found = await asyncio.to_thread(amqp.peek, consuming.url, consuming.queue)
    assert sorted(message.body for message in found) == [b"10", b"11", b"3", b"6", b"8"]


@pytest.mark.parametrize("kind", ["classic", "quorum"])
@pytest.mark.parametrize("stopped", [False, True], ids=["consuming", "stopped before"])
async def test_last_answers_are_given_though_the_session_closes_in_the_same_turn(
    consuming: Consuming, kind: str, *, stopped: bool
) -> None:
    last = Consuming(consuming.session, consuming.url, f"last-{kind}")
    with amqp.channel(last.url) as channel:
        channel.queue_declare(last.queue, durable=True, arguments={"x-queue-type": kind})
        channel.confirm_delivery()
        for _ in range(250):
            channel.basic_publish("", last.queue, b"x")
    await last.start(prefetch=300)
    came = list(await last.get(250))
    if stopped:
        await last.session.cancel(last.queue)
    for delivery in came:
        await delivery.ack()
    await last.session.close()
    with amqp.channel(last.url) as channel:
        assert channel.queue_purge(last.queue).method.message_count == 0


async def test_delivery_is_settled_once_and_not_after_its_session(consuming: Consuming) -> None:
    await consuming.publish(b"1", b"2")
    await consuming.start()
    first, second = await consuming.get(2)
    before = first.is_live
    await first.ack()
    assert (before, first.is_live) == (True, False)
    with pytest.raises(AssertionError, match="settled twice"):
        await first.ack()
    await consuming.session.close()
    assert not second.is_live
    with pytest.raises(ConnectionLost):
        await second.ack()
    await consuming.until_ready(1)


async def test_all_that_was_sent_before_an_answer_has_arrived_with_it(consuming: Consuming) -> None:
    await consuming.start(prefetch=1000)
    for number in range(1, 4):
        await consuming.publish(*[b"x"] * 20)
        await consuming.session.ready(consuming.queue, consuming.queue)
        assert len(consuming.came) == 20 * number


async def test_prefetch_bounds_what_is_held(consuming: Consuming) -> None:
    await consuming.publish(*[b"x"] * 5)
    await consuming.start(prefetch=2)
    await consuming.get(2)
    assert await consuming.session.ready(consuming.queue, consuming.queue) == 3
    await consuming.came[0].ack()
    await consuming.get(3)


async def test_stopped_and_started_again_beside_what_is_held(consuming: Consuming) -> None:
    await consuming.publish(b"held")
    await consuming.start()
    held = (await consuming.get(1))[0]
    await consuming.session.cancel(consuming.queue)
    assert not consuming.session.consumes(consuming.queue)
    await consuming.publish(b"later")
    assert await consuming.session.ready(consuming.queue, consuming.queue) == 1
    await consuming.session.renew(consuming.queue)
    await consuming.get(2)
    for delivery in consuming.came:
        await delivery.ack()
    assert held.is_settled
    await consuming.session.close()
    await consuming.until_ready(0)


async def test_deleted_queue_ends_the_session_and_says_so(consuming: Consuming) -> None:
    await consuming.start()
    with amqp.channel(consuming.url) as channel:
        channel.queue_delete(consuming.queue)
    async with asyncio.timeout(30):
        await consuming.session.ended()
    assert "deleted" in consuming.session.reason


async def test_steady_deliveries_are_a_sign_of_life(settings: Settings, url: str) -> None:
    """RabbitMQ sends no heartbeats beside deliveries, and of those the client library sees none."""
    session = await Session.open(settings.model_copy(update={"heartbeat": 1}), "test")
    streams = session.connection.streams
    assert streams is not None
    seen: list[bytes] = []
    pass_on = asyncio.StreamReader.feed_data

    def noted(reader: asyncio.StreamReader, data: bytes) -> None:
        seen.append(data)
        pass_on(reader, data)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(asyncio.StreamReader, "feed_data", noted)
        with amqp.channel(url) as channel:
            channel.queue_declare("steady", durable=True)
        came: list[Delivery] = []
        await session.consume("steady", "steady", 10, came.append)
        seen.clear()
        await asyncio.to_thread(amqp.publish, url, "steady", b"x", exchange="")
        await eventually_async(lambda: bool(came))
        await eventually_async(
            lambda: any(data.endswith(b"\x08\x00\x00\x00\x00\x00\x00\xce") for data in seen)
        )
        assert not any(b"\x00\x3c\x00\x3c" in data for data in seen)  # Basic.Deliver
    await session.close()


async def test_a_library_that_is_not_known_gets_the_ordinary_way_and_a_warning(
    settings: Settings, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brokerjobs.amqp.session.agrees_with_client", lambda: False)
    with amqp.channel(url) as channel:
        channel.queue_declare("ordinary", durable=True)
    with capture_logs() as lines:
        session = await Session.open(settings, "test")
    consuming = Consuming(session, url, "ordinary")
    await consuming.publish(b"1")
    await consuming.start()
    await (await consuming.get(1))[0].ack()
    await session.close()
    await consuming.until_ready(0)
    assert [line["event"] for line in lines] == ["fast lane is off"]
