"""What every publisher promises, asked of both: the one for event loops and the one for threads.

A send that returns was confirmed and is in a queue. Otherwise it raises: refused (surely not queued) or
unknown (may be queued). Nothing waits beyond its deadline, and nothing is left open at the end.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from brokerjobs import (
    BrokerUnreachable,
    Client,
    ConfigurationError,
    Consumer,
    InvalidArguments,
    JobHandle,
    Message,
    MessageTooLarge,
    NotSerializable,
    PublishRefused,
    PublishUnknown,
    SendManyError,
    UnknownQueue,
    Unroutable,
    WrongLoop,
    topology,
)
from brokerjobs import settings as settings_module
from brokerjobs.amqp.publisher import Publisher
from brokerjobs.connection_record import ConnectionRecord
from brokerjobs.metrics import PUBLISHER, Metrics
from brokerjobs.node.ports import reserve
from brokerjobs.node.private import PrivateNode
from brokerjobs.transport import Publication, use_sender
from tests import amqp
from tests.chaos.proxy import Proxy
from tests.conftest import BY_LIBRARY, one_version
from tests.management import (
    clear_policy,
    close_connections,
    delete_exchange,
    delete_queue,
    forbid,
    open_ports,
    set_policy,
    user,
)
from tests.waiting import eventually, eventually_async

emails = Consumer("emails")


@emails.job()
def welcome(user_id: int, locale: str = "en") -> None: ...


@emails.job(priority=7)
async def receipt(order: dict[str, Any]) -> None: ...


@dataclass
class Publishing:
    """A client, used through one of its two publishers."""

    kind: str
    client: Client

    async def send(self, name: str, arguments: Any = None, **options: Any) -> JobHandle:
        if self.kind == "asyncio":
            return await self.client.asend(name, arguments, **options)
        return await asyncio.to_thread(self.client.send, name, arguments, **options)

    async def send_message(self, message: Message) -> JobHandle:
        if self.kind == "asyncio":
            return await self.client.asend_message(message)
        return await asyncio.to_thread(self.client.send_message, message)

    async def send_many(self, messages: Iterable[Message]) -> list[JobHandle]:
        if self.kind == "asyncio":
            return await self.client.asend_many(messages)
        return await asyncio.to_thread(self.client.send_many, messages)

    def published(self, outcome: str) -> float:
        assert self.client._metrics is not None
        return (
            self.client._metrics.registry.get_sample_value(
                "brokerjobs_jobs_published_total", {"outcome": outcome}
            )
            or 0.0
        )


Open = Callable[..., Awaitable[Publishing]]


@pytest.fixture
def nothing_left_open(request: pytest.FixtureRequest) -> Iterator[None]:
    """In the end there is no thread of a publisher and no connection of this process."""
    node: PrivateNode | None = None
    if "node" in request.fixturenames:
        node = request.getfixturevalue("node")
        request.getfixturevalue("vhost")  # which must outlive the connections to it
    yield
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("brokerjobs")]
    assert node is None or open_ports(node) == []


@pytest.fixture(params=["asyncio", f"asyncio, {BY_LIBRARY}", "blocking", f"blocking, {BY_LIBRARY}"])
async def publishing(
    request: pytest.FixtureRequest, nothing_left_open: None
) -> AsyncIterator[Callable[..., Publishing]]:
    """Make clients; they are closed at the end of the test."""
    clients: list[Client] = []

    def make(url: str, **settings: Any) -> Publishing:
        kind, _, way = request.param.partition(", ")
        settings = {"fast_lane": way != BY_LIBRARY, **settings}
        client = Client(settings=settings_module.load(url=url, **settings), metrics=Metrics())
        clients.append(client)
        return Publishing(kind, client)

    yield make
    for client in clients:
        await client.aclose()


@pytest.fixture
def sender(publishing: Callable[..., Publishing], url: str) -> Publishing:
    """One client of the fresh virtual host, in which there is an exchange `jobs` and a queue `emails`."""
    declare(url)
    return publishing(url)


@pytest.fixture
def cut_off(publishing: Callable[..., Publishing]) -> Publishing:
    """A client without a broker: whatever gets past the checks ends as BrokerUnreachable."""
    return publishing("amqp://guest:guest@127.0.0.1:1/", publish_timeout=0.2, max_message_size=1000)


def declare(url: str, queue: str = "emails", **arguments: Any) -> None:
    """What a publisher needs to find; deliberately without an alternate exchange."""
    with amqp.channel(url) as channel:
        channel.exchange_declare("jobs", "topic", durable=True)
        channel.queue_declare(queue, durable=True, arguments=arguments)
        channel.queue_bind(queue, "jobs", f"{queue}.#")


def ids(url: str, queue: str = "emails") -> list[str]:
    return [found.properties.message_id for found in amqp.peek(url, queue)]


# -- what arrives


async def test_a_send_that_returns_is_in_the_queue(sender: Publishing, url: str) -> None:
    handle = await sender.send("emails.welcome", {"user_id": 7})

    (found,) = amqp.peek(url, "emails")
    assert handle == JobHandle(found.properties.message_id, "emails.welcome")
    assert (found.exchange, found.routing_key) == ("jobs", "emails.welcome")
    assert json.loads(found.body) == {"user_id": 7}
    assert sender.published("confirmed") == 1


async def test_properties_on_the_wire_are_the_documented_ones(sender: Publishing, url: str) -> None:
    before = int(time.time())
    handle = await sender.send("emails.welcome")

    (found,) = amqp.peek(url, "emails")
    properties = found.properties
    assert found.body == b"{}"
    assert properties.delivery_mode == 2
    assert properties.priority == 4
    assert properties.content_type == "application/json"
    assert properties.type == "emails.welcome"
    assert properties.message_id == handle.id
    assert before <= properties.timestamp <= time.time()
    for absent in "headers", "expiration", "correlation_id", "reply_to", "user_id", "content_encoding":
        assert not getattr(properties, absent), absent


async def test_options_travel(sender: Publishing, url: str) -> None:
    handle = await sender.send(
        "emails.welcome",
        {"user_id": 7, "when": datetime(2026, 12, 24, tzinfo=UTC)},
        priority=9,
        id="order-17",
        correlation_id="cart-3",
        expires="10m",
        headers={"tenant": "müller", "n": -(2**63), "big": 2**63 - 1, "dry": True},
    )

    (found,) = amqp.peek(url, "emails")
    assert handle.id == found.properties.message_id == "order-17"
    assert found.properties.priority == 9
    assert found.properties.correlation_id == "cart-3"
    assert json.loads(found.body) == {"user_id": 7, "when": "2026-12-24T00:00:00Z"}
    not_after = found.headers.pop("brokerjobs-not-after") / 1000
    assert not_after == pytest.approx(time.time() + 600, abs=30)
    headers = {name: value for name, value in found.headers.items() if not name.startswith("brokerjobs-")}
    assert headers == {"tenant": "müller", "n": -(2**63), "big": 2**63 - 1, "dry": True}


async def test_priority_of_the_job_and_of_the_send(sender: Publishing, url: str) -> None:
    await sender.send_message(receipt.message({"id": 1}))
    await sender.send_message(receipt.options(priority=0).message({"id": 2}))

    assert [found.properties.priority for found in amqp.peek(url, "emails")] == [7, 0]


async def test_bytes_are_sent_as_they_are(sender: Publishing, url: str) -> None:
    await sender.send("emails.raw", b"\x00\xff not JSON")

    (found,) = amqp.peek(url, "emails")
    assert found.body == b"\x00\xff not JSON"
    assert found.properties.content_type == "application/octet-stream"


@pytest.mark.parametrize("size", [131_072 - 8 + step for step in (-1, 0, 1)] + [2 * (131_072 - 8)])
async def test_bodies_at_the_edges_of_frames(sender: Publishing, url: str, size: int) -> None:
    body = os.urandom(size)
    await sender.send("emails.raw", body)

    assert [found.body for found in amqp.peek(url, "emails")] == [body]


async def test_a_delayed_job_enters_at_its_highest_level(sender: Publishing, url: str) -> None:
    exchange, routing_key = topology.route(topology.Names(), "emails.welcome", 5.0)
    with amqp.channel(url) as channel:
        channel.exchange_declare(exchange, "fanout", durable=True)
        channel.queue_declare("held", durable=True)
        channel.queue_bind("held", exchange, "")

    await sender.send("emails.welcome", {"user_id": 7}, delay="5s")

    (found,) = amqp.peek(url, "held")
    assert found.routing_key == routing_key
    assert found.headers["brokerjobs-due"] / 1000 == pytest.approx(time.time() + 5, abs=5)


# -- what the broker will not keep


async def test_unroutable_is_refused_and_the_next_send_is_fine(sender: Publishing, url: str) -> None:
    with pytest.raises(Unroutable, match=r"no queue is bound to exchange 'jobs' for 'nobody\.home'"):
        await sender.send("nobody.home", check_queue=False)

    handle = await sender.send("emails.welcome")
    assert ids(url) == [handle.id]
    assert (sender.published("refused"), sender.published("confirmed")) == (1, 1)


async def test_a_missing_exchange_is_refused_with_what_to_do(
    publishing: Callable[..., Publishing], url: str
) -> None:
    sender = publishing(url)
    began = time.monotonic()
    with pytest.raises(Unroutable, match=r"no exchange 'jobs'.*brokerjobs topology apply"):
        await sender.send("emails.welcome", check_queue=False)
    assert time.monotonic() - began < 5

    declare(url)
    handle = await sender.send("emails.welcome")
    assert ids(url) == [handle.id]


@pytest.mark.parametrize("bad_at", [0, 10, 39])
async def test_a_missing_exchange_hurts_no_other_send_in_flight(
    sender: Publishing, url: str, bad_at: int
) -> None:
    await sender.send("emails.welcome")
    messages = [welcome.message(n) for n in range(40)]
    bad = welcome.options(delay=10).message(0)  # the delay levels are not there
    messages.insert(bad_at, bad)

    results = await asyncio.gather(*map(sender.send_message, messages), return_exceptions=True)

    failed = {
        message.id: result
        for message, result in zip(messages, results, strict=True)
        if isinstance(result, BaseException)
    }
    assert list(failed) == [bad.id], failed
    # Refused when it was sent again alone; of the first try nobody knows whether it was the one that RabbitMQ minded.
    # Where it was alone on its channel, as the first may be, that is no question.
    assert isinstance(failed[bad.id], Unroutable | PublishUnknown)
    assert "brokerjobs topology apply" in str(failed[bad.id])
    expected = {message.id for message in messages} - {bad.id}
    assert set(ids(url)) >= expected
    assert bad.id not in ids(url)


async def test_an_unroutable_send_among_those_that_are_sent_again_is_not_taken_for_queued(
    sender: Publishing, url: str
) -> None:
    """A missing exchange ends the channel; what was on it is sent again, and keeps its own verdict.

    Where that is a refusal, it is of the second try: the first one's fate is unknown, unless it was returned.
    """
    await sender.send("emails.welcome")
    lost = [Message(job="nobody.home", routing_key="nobody.home") for _ in range(5)]
    good = [welcome.message(n) for n in range(5)]
    bad = [welcome.options(delay=10).message(n) for n in range(3)]
    messages = [message for group in zip(good, lost, strict=True) for message in group]
    messages[3:3] = bad

    results = await asyncio.gather(*map(sender.send_message, messages), return_exceptions=True)

    kinds = {message.id: type(result) for message, result in zip(messages, results, strict=True)}
    assert {kinds[message.id] for message in good} == {JobHandle}
    assert {kinds[message.id] for message in lost + bad} <= {Unroutable, PublishUnknown}


async def test_a_full_queue_is_unknown_within_the_deadline_and_nothing_beyond_is_kept(
    publishing: Callable[..., Publishing], url: str, node: PrivateNode, vhost: str
) -> None:
    declare(url)
    set_policy(node, vhost, "emails", **{"max-length": 3, "overflow": "reject-publish"})
    eventually(lambda: _policy_is_in_force(url))
    sender = publishing(url, publish_timeout=1.0)
    while amqp.ready(url, "emails") < 3:
        await sender.send("emails.welcome")

    began = time.monotonic()
    with pytest.raises(PublishUnknown, match="is the queue full") as raised:
        await sender.send("emails.welcome", id="one-too-many")
    assert time.monotonic() - began < 3
    assert raised.value.id == "one-too-many"
    assert amqp.ready(url, "emails") == 3
    assert sender.published("unknown") == 1

    with amqp.channel(url) as channel:
        channel.queue_purge("emails")
    clear_policy(node, vhost, "emails")
    handle = await sender.send("emails.welcome")
    assert ids(url) == [handle.id]


def _policy_is_in_force(url: str) -> bool:
    """Policies reach queues a moment after they are set; a probe that is refused shows that this one has."""
    with amqp.channel(url) as channel:
        channel.confirm_delivery()
        channel.queue_purge("emails")
        try:
            for _ in range(5):
                channel.basic_publish("jobs", "emails.probe", b"")
        except Exception:
            return True
        finally:
            channel.connection.channel().queue_purge("emails")
        return False


async def test_a_full_queue_that_gets_room_in_time_is_confirmed(
    sender: Publishing, url: str, node: PrivateNode, vhost: str
) -> None:
    set_policy(node, vhost, "emails", **{"max-length": 3, "overflow": "reject-publish"})
    eventually(lambda: _policy_is_in_force(url))
    for _ in range(3):
        await sender.send("emails.welcome")

    sending = asyncio.create_task(sender.send("emails.welcome", id="patient"))
    done, _ = await asyncio.wait({sending}, timeout=0.5)
    assert not done
    with amqp.channel(url) as channel:
        channel.queue_purge("emails")
    await sending
    assert ids(url) == ["patient"]


# -- what is refused before anything is sent


async def test_an_unknown_queue_is_refused_until_it_is_there(sender: Publishing, url: str) -> None:
    with pytest.raises(UnknownQueue, match=r"has no queue 'reports'.*brokerjobs consume reports"):
        await sender.send("reports.monthly")

    declare(url, "reports")
    await sender.send("reports.monthly")
    assert amqp.ready(url, "reports") == 1


@pytest.mark.parametrize("name", ["", "emails", ".", "emails.", ".welcome", "Emails.Welcome", "emails welcome", "é.é",
                                  "jobs.welcome"])  # fmt: skip
async def test_a_name_that_is_none_is_refused_with_what_it_should_look_like(
    cut_off: Publishing, name: str
) -> None:
    with pytest.raises(InvalidArguments, match=r"emails\.welcome"):
        await cut_off.send(name)


async def test_too_large_is_refused(cut_off: Publishing) -> None:
    with pytest.raises(MessageTooLarge, match="1,001 bytes, above the limit of 1,000"):
        await cut_off.send("emails.raw", b"x" * 1001, check_queue=False)
    with pytest.raises(BrokerUnreachable):
        await cut_off.send("emails.raw", b"x" * 1000, check_queue=False)


def _cycle() -> dict[str, Any]:
    cycle: dict[str, Any] = {}
    cycle["itself"] = cycle
    return cycle


@pytest.mark.parametrize(
    "value",
    [object(), math.nan, math.inf, [1.0, -math.inf], "\ud800", _cycle(), lambda: 0],
    ids=["object", "nan", "inf", "nested-inf", "surrogate", "cycle", "function"],
)
async def test_what_json_cannot_carry_is_refused(cut_off: Publishing, value: Any) -> None:
    with pytest.raises(NotSerializable, match="arguments"):
        await cut_off.send("emails.welcome", {"value": value})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"priority": 10}, "priority must be 0 to 9"),
        ({"delay": "400d"}, "beyond the longest"),
        ({"delay": 1, "at": datetime.now(UTC)}, "not both"),
        ({"id": "\ud800"}, "id must be"),
        ({"correlation_id": "ü" * 200}, "correlation_id must be"),
        ({"headers": {"ratio": 0.5}}, "header 'ratio' must be str, int or bool"),
        ({"headers": {"x-death": "1"}}, "reserved"),
        ({"headers": {"text": "\ud800"}}, "header 'text'"),
        ({"headers": {"text": "x" * 40_000}}, "headers"),
    ],
)
async def test_options_that_cannot_be_are_refused(
    cut_off: Publishing, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(PublishRefused, match=says) as raised:
        await cut_off.send("emails.welcome", **options)
    assert not isinstance(raised.value, BrokerUnreachable)


def test_arguments_that_do_not_fit_the_signature_are_refused_before_any_connection() -> None:
    unreachable = Client("amqp://guest:guest@127.0.0.1:1/")
    before = use_sender(unreachable)
    try:
        with pytest.raises(InvalidArguments, match=r"welcome.*user_id"):
            welcome.send("seven")  # type: ignore[arg-type]
        with pytest.raises(InvalidArguments, match=r"locale"):
            welcome.send(7, locale=None)  # type: ignore[arg-type]
        with pytest.raises(InvalidArguments, match=r"user_id"):
            welcome.send()  # type: ignore[call-arg]
        with pytest.raises(InvalidArguments, match=r"nobody"):
            welcome.options(priority=9).send(7, nobody=1)  # type: ignore[call-arg]
    finally:
        use_sender(before)


async def test_a_blocking_send_on_a_running_loop_names_the_other() -> None:
    client = Client("amqp://guest:guest@127.0.0.1:1/")
    before = use_sender(client)
    try:
        with pytest.raises(WrongLoop, match=r"await client\.asend"):
            client.send("emails.welcome")
        with pytest.raises(WrongLoop, match=r"asend"):
            welcome.send(7)
        with pytest.raises(WrongLoop, match=r"asend"):
            welcome.options(priority=9).send(7)
        with pytest.raises(WrongLoop, match=r"asend_many"):
            client.send_many([welcome.message(7)])
        with pytest.raises(WrongLoop, match=r"asend_message"):
            client.send_message(welcome.message(7))
    finally:
        use_sender(before)


# -- no broker, or not for us


async def test_an_unreachable_broker_is_named_by_the_deadline_without_its_password(
    publishing: Callable[..., Publishing],
) -> None:
    with reserve() as port:
        sender = publishing(f"amqp://shop:s3cret@127.0.0.1:{port.number}/", publish_timeout=0.5)
        began = time.monotonic()
        with pytest.raises(BrokerUnreachable, match=f"127.0.0.1:{port.number}.*refused") as raised:
            await sender.send("emails.welcome", check_queue=False)
        with pytest.raises(BrokerUnreachable, match=f"127.0.0.1:{port.number}.*refused") as asked:
            await sender.send("emails.welcome")
        assert time.monotonic() - began < 4
    assert "s3cret" not in f"{raised.value!r} {asked.value!r}"


async def test_a_host_that_does_not_resolve_is_named(publishing: Callable[..., Publishing]) -> None:
    sender = publishing("amqp://shop:s3cret@rabbit.invalid/", publish_timeout=0.5)
    with pytest.raises(BrokerUnreachable, match=r"rabbit\.invalid:5672") as raised:
        await sender.send("emails.welcome", check_queue=False)
    assert "s3cret" not in repr(raised.value)


async def test_a_peer_that_accepts_and_says_nothing_is_left_by_the_deadline(
    publishing: Callable[..., Publishing],
) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        sender = publishing(f"amqp://shop:s3cret@127.0.0.1:{port}/", publish_timeout=0.5, connect_timeout=0.3)
        began = time.monotonic()
        with pytest.raises(BrokerUnreachable, match=f"127.0.0.1:{port}"):
            await sender.send("emails.welcome", check_queue=False)
        assert time.monotonic() - began < 3


async def test_close_ends_a_send_that_waits_for_a_silent_peer(
    publishing: Callable[..., Publishing],
) -> None:
    accepted = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set()
        with suppress(ConnectionError):
            await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        sender = publishing(f"amqp://shop:s3cret@127.0.0.1:{port}/", publish_timeout=30.0)
        sending = asyncio.create_task(sender.send("emails.welcome", check_queue=False))
        await asyncio.wait_for(accepted.wait(), 20)
        began = time.monotonic()
        await sender.client.aclose()
        with pytest.raises(BrokerUnreachable, match="closed"):
            await sending
        assert time.monotonic() - began < 8


async def test_what_does_not_speak_amqp_is_said_to(
    publishing: Callable[..., Publishing], node: PrivateNode
) -> None:
    sender = publishing(f"amqp://shop:s3cret@127.0.0.1:{node.ports.management}/", publish_timeout=1.0)
    with pytest.raises((BrokerUnreachable, ConfigurationError), match=str(node.ports.management)) as raised:
        await sender.send("emails.welcome", check_queue=False)
    assert "s3cret" not in repr(raised.value)


async def test_a_wrong_password_is_said_at_once_and_not_shown(
    publishing: Callable[..., Publishing], url: str, node: PrivateNode
) -> None:
    sender = publishing(url.replace("guest:guest", "guest:s3cret"))
    began = time.monotonic()
    with pytest.raises(
        ConfigurationError, match=f"127.0.0.1:{node.ports.amqp}.*wrong name or password"
    ) as raised:
        await sender.send("emails.welcome")
    assert time.monotonic() - began < 5
    assert "s3cret" not in repr(raised.value)


async def test_a_wrong_virtual_host_is_said_at_once(publishing: Callable[..., Publishing], url: str) -> None:
    sender = publishing(url + "-other")
    began = time.monotonic()
    with pytest.raises(ConfigurationError, match="virtual host"):
        await sender.send("emails.welcome")
    assert time.monotonic() - began < 5


async def test_a_user_who_may_not_publish_is_told(
    publishing: Callable[..., Publishing], url: str, node: PrivateNode, vhost: str
) -> None:
    declare(url)
    with user(node, vhost, f"reader-{vhost}", read=".*") as reader_url:
        sender = publishing(reader_url)
        with pytest.raises(PublishRefused, match=r"refuse.*jobs"):
            await sender.send("emails.welcome", check_queue=False)
        await sender.client.aclose()
    assert amqp.ready(url, "emails") == 0


# -- at the same time


async def test_two_sends_with_one_id_keep_their_own_verdicts(sender: Publishing, url: str) -> None:
    for turn in range(20):
        lost = Message(job="nobody.home", routing_key="nobody.home", id=f"twin-{turn}")
        good = Message(job="emails.welcome", routing_key="emails.welcome", id=f"twin-{turn}")
        pair = [lost, good] if turn % 2 else [good, lost]
        results = await asyncio.gather(*map(sender.send_message, pair), return_exceptions=True)
        verdicts = dict(zip((message.job for message in pair), results, strict=True))
        assert isinstance(verdicts["nobody.home"], Unroutable)
        assert isinstance(verdicts["emails.welcome"], JobHandle)
    assert sorted(ids(url)) == sorted(f"twin-{turn}" for turn in range(20))


async def test_fifty_at_once(publishing: Callable[..., Publishing], url: str) -> None:
    declare(url)
    sender = publishing(url)
    if sender.kind == "asyncio":
        handles = await asyncio.gather(*(sender.send("emails.welcome", {"user_id": n}) for n in range(500)))
    else:
        with ThreadPoolExecutor(50) as threads:
            sends = [threads.submit(sender.client.send, "emails.welcome", {"user_id": n}) for n in range(500)]
            handles = [await asyncio.wrap_future(send) for send in sends]
    assert Counter(ids(url)) == Counter(handle.id for handle in handles)
    assert len({handle.id for handle in handles}) == 500


async def test_a_connection_closed_between_sends_is_replaced(
    sender: Publishing, url: str, node: PrivateNode
) -> None:
    sent = []
    for n in range(4):
        sent.append((await sender.send("emails.welcome", {"user_id": n})).id)
        assert close_connections(node) == 1
    assert ids(url) == sent


async def test_connections_closed_during_sends_lose_nothing(
    sender: Publishing, url: str, node: PrivateNode
) -> None:
    sent: list[str] = []
    stop = asyncio.Event()

    async def keep_sending() -> None:
        while not stop.is_set():
            sent.append((await sender.send("emails.welcome")).id)

    senders = [asyncio.create_task(keep_sending()) for _ in range(10)]
    for _ in range(4):
        count = len(sent)
        await eventually_async(lambda count=count: len(sent) > count + 50)  # type: ignore[misc]
        assert await asyncio.to_thread(close_connections, node) == 1
    stop.set()
    await asyncio.gather(*senders)

    found = Counter(ids(url))
    assert set(sent) == set(found), "each confirmed is there, and nothing else"
    assert len(sent) == len(set(sent))


@pytest.mark.parametrize(
    "change", ["permissions are revoked", "the exchange is deleted", "the queue is deleted"]
)
async def test_a_send_whose_confirm_was_lost_stays_unknown_when_the_next_try_is_refused(
    change: str, publishing: Callable[..., Publishing], url: str, node: PrivateNode, vhost: str
) -> None:
    """What was written once may be queued, whatever RabbitMQ says of it later."""
    declare(url)
    name = f"sender-{vhost}"
    with user(node, vhost, name, write=".*", configure=".*") as user_url, Proxy(node.ports.amqp) as proxy:
        sender = publishing(user_url.replace(f":{node.ports.amqp}/", f":{proxy.port}/"))
        await sender.send("emails.welcome")
        await asyncio.to_thread(proxy.set, "hole-in")
        sending = asyncio.create_task(sender.send("emails.welcome", id="doubtful"))
        await eventually_async(lambda: amqp.ready(url, "emails") == 2)
        match change:
            case "permissions are revoked":
                forbid(node, vhost, name)
            case "the exchange is deleted":
                delete_exchange(node, vhost, "jobs")
            case _:
                delete_queue(node, vhost, "emails")
        await asyncio.to_thread(proxy.set, "reset")
        with pytest.raises(PublishUnknown, match="doubtful"):
            await sending
        await sender.client.aclose()


async def test_a_queue_deleted_in_between_is_unroutable_not_a_loss(sender: Publishing, url: str) -> None:
    await sender.send("emails.welcome")
    with amqp.channel(url) as channel:
        channel.queue_delete("emails")
    with pytest.raises(Unroutable):
        await sender.send("emails.welcome")


# -- many


async def test_five_thousand_arrive_exactly_once_and_in_order(sender: Publishing, url: str) -> None:
    handles = await sender.send_many(welcome.message(n) for n in range(5000))

    with amqp.channel(url) as channel:
        found = [next(channel.consume("emails")) for _ in handles]
        assert channel.queue_declare("emails", passive=True).method.message_count == 0
    assert [handle.id for handle in handles] == [properties.message_id for _, properties, _ in found]
    assert [json.loads(body)["user_id"] for _, _, body in found] == list(range(5000))


async def test_many_with_one_that_is_refused_tells_which(
    publishing: Callable[..., Publishing], url: str
) -> None:
    declare(url)
    sender = publishing(url, max_message_size=2000)
    messages = [welcome.message(n) for n in range(1000)]
    messages[300] = Message(job="nobody.home", routing_key="nobody.home")
    messages[600] = welcome.message(600, locale="x" * 3000)
    messages[900] = welcome.options(delay="388d").message(1)  # no delay levels here

    with pytest.raises(SendManyError, match="997 of 1000 were confirmed, 2 refused, 1 unknown") as raised:
        await sender.send_many(iter(messages))

    results = raised.value.results
    assert [n for n, result in enumerate(results) if not isinstance(result, JobHandle)] == [300, 600, 900]
    assert isinstance(results[300], Unroutable)
    assert isinstance(results[600], MessageTooLarge)
    assert isinstance(results[900], PublishUnknown)  # as all that is refused after its channel was closed
    assert "no exchange" in str(results[900])
    confirmed = {result.id for result in results if isinstance(result, JobHandle)}
    assert set(ids(url)) == confirmed == {m.id for m in messages} - {messages[n].id for n in (300, 600, 900)}


async def test_a_generator_is_taken_as_confirms_come(sender: Publishing) -> None:
    ahead: list[float] = []

    def messages() -> Iterator[Message]:
        for n in range(1500):
            ahead.append(n - sender.published("confirmed"))
            yield welcome.message(n)

    assert len(await sender.send_many(messages())) == 1500
    assert max(ahead) <= 500, "the window of unconfirmed messages"
    assert max(ahead) > 10, "pipelined"


async def test_what_a_generator_raises_comes_out_as_it_is(sender: Publishing, url: str) -> None:
    def messages() -> Iterator[Message]:
        for n in range(20):
            yield welcome.message(n)
        raise LookupError("row 20")

    with pytest.raises(LookupError, match="row 20"):
        await sender.send_many(messages())
    assert amqp.ready(url, "emails") == 20, "what was taken before is sent"


async def test_none_is_fine(sender: Publishing) -> None:
    assert await sender.send_many([]) == []


# -- a broker in trouble


@pytest.fixture
def own_url(own_url: str) -> str:
    declare(own_url)
    return own_url


async def test_a_memory_alarm_ends_a_send_by_its_deadline_and_passes(
    publishing: Callable[..., Publishing], own_node: PrivateNode, own_url: str
) -> None:
    metrics = Metrics()
    blocked = metrics.blocked.labels(PUBLISHER)
    counted = Publisher(settings_module.load(url=own_url), record=ConnectionRecord(metrics, PUBLISHER))
    other = Publication("jobs", "emails.welcome", Message(job="emails.welcome", routing_key="emails.welcome"))
    sender = publishing(own_url, publish_timeout=2.0)
    await sender.send("emails.welcome", id="before")
    await asyncio.to_thread(own_node.ctl, "set_vm_memory_high_watermark", "absolute", "1")
    try:
        counting = asyncio.create_task(counted.publish(other, timeout=60))
        began = time.monotonic()
        sees_alarms = sender.kind == "blocking" or sender.client.settings.fast_lane
        why = "alarm" if sees_alarms else "in time"
        with pytest.raises((PublishUnknown, BrokerUnreachable), match=why):
            await sender.send("emails.welcome", id="during")
        assert time.monotonic() - began < 5
        so_far = blocked.value
        assert 0 < so_far < time.monotonic() - began + 1
        await eventually_async(lambda: blocked.value > so_far)  # it grows while it lasts
    finally:
        await asyncio.to_thread(own_node.ctl, "set_vm_memory_high_watermark", "0.4")

    await counting
    await sender.send("emails.welcome", id="after")
    await eventually_async(lambda: blocked.value == blocked.value)  # it stands still
    await counted.close()
    found = Counter(ids(own_url)) - Counter([other.message.id])
    assert set(found) >= {"before", "after"}
    assert set(found) <= {"before", "during", "after"}


@one_version  # a RabbitMQ that is not there has none
async def test_a_broker_that_is_down_and_comes_back(
    publishing: Callable[..., Publishing],
    own_node: PrivateNode,
    own_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("brokerjobs.amqp.links.REST", 0.2)
    metrics = Metrics()
    counted = Publisher(settings_module.load(url=own_url), record=ConnectionRecord(metrics, PUBLISHER))
    other = Publication("jobs", "emails.welcome", Message(job="emails.welcome", routing_key="emails.welcome"))
    sender = publishing(own_url, publish_timeout=1.0)
    patient = publishing(own_url, publish_timeout=60.0)
    await sender.send("emails.welcome", id="before")
    await patient.send("emails.welcome", id="before-too")
    await asyncio.to_thread(own_node.stop)

    began = time.monotonic()
    with pytest.raises(
        (BrokerUnreachable, PublishUnknown), match=rf":{own_node.ports.amqp}|connection was lost"
    ):
        await sender.send("emails.welcome", id="during")
    assert time.monotonic() - began < 4
    with pytest.raises(BrokerUnreachable):
        await counted.publish(other, timeout=0.2)
    assert metrics.connected.labels(PUBLISHER).value == 0
    waiting = asyncio.create_task(patient.send("emails.welcome", id="patient"))

    await asyncio.to_thread(own_node.start)
    await waiting
    await sender.send("emails.welcome", id="after")
    await eventually_async(lambda: metrics.connected.labels(PUBLISHER).value == 1)  # though nothing was sent
    await counted.close()
    assert Counter(ids(own_url)) == Counter(["before", "before-too", "patient", "after"])


async def test_a_frozen_broker_ends_every_wait_by_its_deadline(
    publishing: Callable[..., Publishing], own_node: PrivateNode, own_url: str
) -> None:
    sender = publishing(own_url, publish_timeout=1.0, connect_timeout=1.0, heartbeat=2)
    fresh = publishing(own_url, publish_timeout=1.0, connect_timeout=1.0)
    await sender.send("emails.welcome", id="before")
    own_node.pause()
    eventually(lambda: _is_frozen(own_node.pid))
    try:
        began = time.monotonic()
        with pytest.raises(PublishUnknown):
            await sender.send("emails.welcome", id="during")
        with pytest.raises(BrokerUnreachable):
            await fresh.send("emails.welcome", check_queue=False)
        with pytest.raises(BrokerUnreachable):
            await fresh.send("emails.welcome")
        with pytest.raises(SendManyError, match="0 of 10 were confirmed"):
            await fresh.send_many([welcome.message(n) for n in range(10)])
        assert time.monotonic() - began < 12
        began = time.monotonic()
        await fresh.client.aclose()
        assert time.monotonic() - began < 5
    finally:
        own_node.resume()

    await sender.send("emails.welcome", id="after")
    found = Counter(ids(own_url))
    assert set(found) - {"during"} == {"before", "after"}


def _is_frozen(pid: int) -> bool:
    """A signal reaches the threads of a process one by one."""
    states = [(task / "stat").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return all(state.rpartition(")")[2].split()[0] == "T" for state in states)


# -- closing


async def test_after_close_the_next_send_opens_another_connection(
    sender: Publishing, url: str, node: PrivateNode
) -> None:
    await sender.send("emails.welcome", id="one")
    await sender.client.aclose()
    eventually(lambda: not open_ports(node))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("brokerjobs")]

    await sender.send("emails.welcome", id="two")
    assert ids(url) == ["one", "two"]


async def test_close_before_any_send_and_twice(sender: Publishing) -> None:
    await sender.client.aclose()
    await sender.client.aclose()
    await asyncio.to_thread(sender.client.close)


async def test_close_while_sends_are_in_flight_leaves_none_waiting(sender: Publishing, url: str) -> None:
    await sender.send("emails.welcome")
    for _ in range(5):
        sends = [asyncio.create_task(sender.send("emails.welcome")) for _ in range(30)]
        await asyncio.wait(sends, return_when=asyncio.FIRST_COMPLETED)
        await sender.client.aclose()
        began = time.monotonic()
        results = await asyncio.gather(*sends, return_exceptions=True)
        assert time.monotonic() - began < 5
        confirmed = {result.id for result in results if isinstance(result, JobHandle)}
        failed = [result for result in results if not isinstance(result, JobHandle)]
        assert all(isinstance(failure, (PublishUnknown, BrokerUnreachable)) for failure in failed), failed
        assert confirmed <= set(ids(url))
        await sender.client.aclose()


# -- processes


PROGRAM = """
import asyncio, os, sys, threading
from brokerjobs import Client, Consumer, send_many
from brokerjobs import transport
emails = Consumer("emails")
@emails.job()
def welcome(who: str) -> None: ...
"""


def run_program(url: str, lines: str, *, code: int = 0) -> str:
    """Run a program against the broker; it must end in time, with this code, and say nothing on standard error."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BROKERJOBS_")}
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM + lines],
        env={**environment, "BROKERJOBS_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as program:
        try:
            out, err = program.communicate(timeout=60)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)  # and its children
    assert (program.returncode, err) == (code, ""), out
    return out


def senders(url: str) -> list[str]:
    return sorted(json.loads(found.body)["who"] for found in amqp.peek(url, "emails"))


FORK = """
def fork(child):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        child()
        sys.stdout.flush()
        sys.exit(0)
    return pid

def join(*pids):
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0] * len(pids)
"""


def test_a_child_of_a_fork_sends_on_its_own_connection(url: str) -> None:
    declare(url)
    run_program(
        url,
        FORK
        + """
welcome.send("parent before")
for turn in range(3):
    join(fork(lambda: [welcome.send(f"child {turn}.{n}") for n in range(3)]))
    welcome.send(f"parent {turn}")
""",
    )
    assert senders(url) == sorted(
        ["parent before"]
        + [f"parent {turn}" for turn in range(3)]
        + [f"child {turn}.{n}" for turn in range(3) for n in range(3)]
    )


def test_workers_preloaded_and_forked_send_at_once(url: str) -> None:
    """As gunicorn --preload does: the parent has sent, and goes on sending."""
    declare(url)
    run_program(
        url,
        FORK
        + """
welcome.send("parent")
def child():
    threads = [threading.Thread(target=welcome.send, args=(f"child {n}",)) for n in range(20)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
pids = [fork(child), fork(child)]
for n in range(20):
    welcome.send("parent")
join(*pids)
welcome.send("parent")
""",
    )
    assert Counter(senders(url)) == Counter({"parent": 22, **{f"child {n}": 2 for n in range(20)}})


def test_a_fork_while_other_threads_send(url: str) -> None:
    declare(url)
    run_program(
        url,
        FORK
        + """
stop = threading.Event()
sent = [0] * 4
def keep_sending(n):
    while not stop.is_set():
        welcome.send("parent")
        sent[n] += 1
threads = [threading.Thread(target=keep_sending, args=(n,)) for n in range(4)]
for thread in threads: thread.start()
for turn in range(8):
    join(fork(lambda: welcome.send("child")))
stop.set()
for thread in threads: thread.join()
print(sum(sent))
""",
    )
    counts = Counter(senders(url))
    assert counts["child"] == 8


def test_a_child_of_a_fork_sends_from_its_own_loop(url: str) -> None:
    declare(url)
    run_program(
        url,
        FORK
        + """
import gc
asyncio.run(welcome.asend("parent before"))
def child():
    asyncio.run(welcome.asend("child"))
    gc.collect()
join(fork(child), fork(child))
asyncio.run(welcome.asend("parent after"))
""",
    )
    assert senders(url) == ["child", "child", "parent after", "parent before"]


def test_a_loop_that_ends_takes_its_connection_along_in_silence(url: str) -> None:
    declare(url)
    out = run_program(
        url,
        """
import socket, stat, gc
def sockets():
    found = 0
    for descriptor in range(3, 256):
        try:
            found += stat.S_ISSOCK(os.fstat(descriptor).st_mode)
        except OSError:
            pass
    return found
for n in range(5):
    asyncio.run(welcome.asend(str(n)))
    print(sockets())
""",
    )
    assert senders(url) == list("01234")
    assert out.split() == ["0"] * 5, "sockets left open"


def test_a_program_that_sends_and_ends_does_so_in_silence(url: str) -> None:
    declare(url)
    run_program(url, 'welcome.send("one"); send_many([welcome.message("two")])')
    assert senders(url) == ["one", "two"]


def test_a_failure_is_raised_and_not_said_on_standard_error_too() -> None:
    out = run_program(
        "amqp://guest:s3cret@127.0.0.1:1/",
        """
from brokerjobs import BrokerUnreachable
client = Client(publish_timeout=0.5)
for send in client.send, lambda *args, **options: asyncio.run(client.asend(*args, **options)):
    try:
        send("emails.welcome", check_queue=False)
    except BrokerUnreachable as error:
        print(error)
""",
    )
    assert (
        out
        == 2
        * "RabbitMQ at 127.0.0.1:1 cannot be reached: connection refused; is it running, and on this port?\n"
    )


def test_a_program_that_ends_while_a_daemon_thread_sends_does_not_hang(url: str) -> None:
    declare(url)
    run_program(
        url,
        """
welcome.send("one")
def keep_sending():
    try:
        while True:
            welcome.send("more")
    except BaseException:
        pass
threading.Thread(target=keep_sending, daemon=True).start()
""",
    )
    assert "one" in senders(url)


def test_one_client_serves_threads_and_loops(url: str) -> None:
    declare(url)
    run_program(
        url,
        """
async def from_loop(n):
    await asyncio.gather(*(welcome.asend(f"loop {n}") for _ in range(10)))
threads = [threading.Thread(target=lambda n=n: asyncio.run(from_loop(n))) for n in range(4)]
threads += [threading.Thread(target=lambda: [welcome.send("thread") for _ in range(10)]) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
""",
    )
    assert Counter(senders(url)) == Counter({"thread": 40, **{f"loop {n}": 10 for n in range(4)}})
