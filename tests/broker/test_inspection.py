"""A snapshot says what the queues hold, and says so when it cannot."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import SecretStr

from brokerjobs import Consumer, topology
from brokerjobs.amqp import declare
from brokerjobs.amqp.connection import Connection
from brokerjobs.errors import BrokerUnreachable, ConfigurationError
from brokerjobs.inspection import Counts, Level, Snapshot, Watch
from brokerjobs.node.private import PrivateNode
from brokerjobs.settings import Settings
from brokerjobs.topology import Names
from tests import amqp
from tests.conftest import StartWorker
from tests.waiting import eventually_async


@pytest.fixture
def told(settings: Settings, node: PrivateNode) -> Settings:
    """Settings that say where the management API is."""
    return settings.model_copy(update={"management_url": SecretStr(node.http_url)})


async def declare_queues(settings: Settings, *queues: str) -> None:
    names, connection = Names(settings.namespace), await Connection.open(settings, "test")
    try:
        parts = topology.shared(names)
        for queue in queues:
            parts += topology.for_queue(names, queue, connection.capabilities)
        await declare.apply(connection, parts, settings)
    finally:
        await connection.close()


async def look(settings: Settings, *queues: str) -> Snapshot:
    async with Watch(settings, queues) as watch:
        return (await watch.look()).snapshot


async def test_snapshot_counts_what_is_ready_held_waiting_dead_and_unrouted(told: Settings, url: str) -> None:
    await declare_queues(told, "emails", "orders")
    for _ in range(4):
        amqp.publish(url, "emails.welcome", b"{}")
    amqp.publish(url, "emails", b"{}", exchange="jobs.dead")
    amqp.publish(url, "nobody.listens", b"{}")
    for seconds in 3600.0, 3600.0, 1024.0:
        exchange, key = topology.route_to_queue(Names(), "emails", seconds)
        amqp.publish(url, key, b"{}", exchange=exchange)

    with amqp.channel(url) as channel:
        channel.basic_qos(prefetch_count=1)
        channel.basic_consume("emails", lambda *_: None)
        channel.connection.process_data_events(time_limit=1)
        seen = await look(told)
        emails, orders = seen.queues
        assert (emails.queue, emails.ready, emails.consumers, emails.dead) == ("emails", 3, 1, 1)
        assert orders == Counts(queue="orders", ready=0, unacked=0, consumers=0, dead=0)
        assert seen.levels == (Level(1024.0, 1), Level(2048.0, 2))
        assert (seen.waiting, seen.unrouted, seen.missing) == (3, 1, "")

        held = -1
        for _ in range(200):  # of a quorum queue the API says so after up to five seconds
            held = (await look(told)).queues[0].unacked or 0
            if held == 1:
                break
            channel.connection.process_data_events(time_limit=0.05)
        assert held == 1


async def test_snapshot_finds_queues_that_nobody_named_and_no_others(told: Settings, url: str) -> None:
    await declare_queues(told, "emails")
    await declare_queues(told.model_copy(update={"namespace": "shop"}), "orders")
    with amqp.channel(url) as channel:
        for name in "theirs", "lonely.dead", "shop.theirs":
            channel.queue_declare(name)
    assert [counts.queue for counts in (await look(told)).queues] == ["emails"]
    shop = await look(told.model_copy(update={"namespace": "shop"}))
    assert [counts.queue for counts in shop.queues] == ["orders"]


async def test_snapshot_without_the_api_counts_named_queues_and_says_what_is_missing(
    settings: Settings, url: str
) -> None:
    await declare_queues(settings, "emails", "orders")
    amqp.publish(url, "emails.welcome", b"{}")
    away = settings.model_copy(update={"management_url": SecretStr("http://guest:secret@127.0.0.1:9")})
    seen = await look(away, "emails", "later")
    assert seen.queues == (
        Counts(queue="emails", ready=1, unacked=None, consumers=0, dead=0),
        Counts(queue="later", ready=None, unacked=None, consumers=0, dead=0),
    )
    assert seen.unrouted == 0
    assert "unacked" in seen.missing
    assert "nothing answers at http://127.0.0.1:9" in seen.missing
    assert "secret" not in seen.missing


@pytest.fixture
def impostor() -> Iterator[str]:
    """The management API of another RabbitMQ on this host."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            queues = [{"name": name, "messages_unacknowledged": 7} for name in ("emails", "emails.dead")]
            name = {"name": "rabbit@elsewhere"}
            body = json.dumps(name if self.path.endswith("cluster-name") else queues).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


async def test_snapshot_believes_no_other_brokers_api(settings: Settings, impostor: str) -> None:
    await declare_queues(settings, "orders")
    seen = await look(settings.model_copy(update={"management_url": SecretStr(impostor)}), "orders")
    assert seen.queues == (Counts(queue="orders", ready=0, unacked=None, consumers=0, dead=0),)
    assert "another RabbitMQ, rabbit@elsewhere" in seen.missing


async def test_snapshot_follows_a_worker(told: Settings, start_worker: StartWorker, url: str) -> None:
    consumer = Consumer("emails")

    @consumer.job()
    async def welcome() -> None:
        pass

    await start_worker(consumer)
    amqp.publish(url, "emails.welcome", b"{}")
    await eventually_async(lambda: amqp.ready(url, "emails") == 0)
    (emails,) = (await look(told)).queues
    assert (emails.ready, emails.consumers, emails.dead) == (0, 1, 0)


async def test_snapshot_of_an_untouched_broker_is_empty(told: Settings) -> None:
    seen = await look(told)
    assert (seen.queues, seen.levels, seen.unrouted, seen.missing) == ((), (), None, "")


async def test_snapshot_refuses_what_is_no_queue_and_says_when_nobody_answers(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="one word"):
        await look(settings, "no queue")
    away = settings.model_copy(update={"url": SecretStr("amqp://guest:guest@127.0.0.1:9/")})
    with pytest.raises(BrokerUnreachable):
        await look(away)
