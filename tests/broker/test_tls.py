"""TLS with both clients: what is right connects, what is wrong is refused before a byte of AMQP, with its cause."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from brokerjobs import Client, Consumer
from brokerjobs import settings as settings_module
from brokerjobs.amqp.blocking import BlockingPublisher
from brokerjobs.amqp.connection import Connection
from brokerjobs.errors import BrokerUnreachable, ConfigurationError
from brokerjobs.inspection.management import listing
from brokerjobs.node.ports import ReservedPort, reserve
from brokerjobs.node.private import PrivateNode
from brokerjobs.settings import Settings
from tests.certificates import Authority, Pair, listening
from tests.conftest import VERSIONS, StartWorker, _installation
from tests.waiting import eventually_async

CLIENTS = ("aio-pika", "pika")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours") / "ca")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("theirs") / "ca")


def settings(url: str, **options: Any) -> Settings:
    given = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    return settings_module.load(url=url, connect_timeout=5, **{"publish_timeout": 5, **given})


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def connect(client: str, chosen: Settings) -> None:
    if client == "aio-pika":
        await (await Connection.open(chosen, "test")).close()
        return
    publisher = BlockingPublisher(chosen)
    try:
        await asyncio.to_thread(publisher.queue_exists, "nothing", timeout=chosen.publish_timeout)
    finally:
        publisher.close()


# -- what is wrong


@pytest.mark.parametrize(
    ("case", "complaint"),
    [
        ("another authority", "signed by no authority that is trusted here"),
        ("no authority of ours", "signed by no authority that is trusted here"),
        ("another host", "is for another host: .*not valid for 'localhost'"),
        ("expired", "has expired"),
        ("TLS 1.1", r"offers no TLS 1\.2 or later"),
    ],
)
async def test_what_cannot_be_trusted_gets_no_byte_of_amqp(
    authority: Authority, stranger: Authority, client: str, case: str, complaint: str
) -> None:
    pair = authority.sign("rabbit" if case == "another host" else "localhost", expired=case == "expired")
    trusted = {"another authority": stranger.file, "no authority of ours": None}.get(case, authority.file)
    with listening(pair, ssl.TLSVersion.TLSv1_1 if case == "TLS 1.1" else None) as listener:
        chosen = settings(f"amqps://jane:secret@localhost:{listener.port}/", tls_ca=trusted)

        with pytest.raises(ConfigurationError, match=complaint):
            await connect(client, chosen)

    assert (listener.came, listener.received) == (1, b"")


async def test_without_tls_the_port_for_it_hangs_up_and_nothing_else_is_tried(
    authority: Authority, client: str
) -> None:
    with listening(authority.sign("localhost")) as listener:
        chosen = settings(f"amqp://jane:secret@localhost:{listener.port}/", publish_timeout=1)

        with pytest.raises(BrokerUnreachable, match="does it expect TLS\\? then write amqps://"):
            await connect(client, chosen)

    assert listener.received == b""


# -- RabbitMQ


class Secured:
    """A RabbitMQ that listens with TLS too, and who may come there.

    Args:
        node: it.
        port: where AMQP comes by TLS.
        management: likewise the management API.
        authority: has signed all.
    """

    def __init__(self, node: PrivateNode, port: int, management: int, authority: Authority) -> None:
        self.node = node
        self._port = port
        self._management = management
        self._authority = authority
        self._shop = authority.sign("shop.example")

    def settings(self, pair: Pair | None = None, *, url: str = "", **options: Any) -> Settings:
        files = {"tls_certificate": pair.certificate, "tls_key": pair.key} if pair else {}
        return settings(
            url or f"amqps://guest:guest@localhost:{self._port}/",
            tls_ca=self._authority.file,
            management_url=f"https://localhost:{self._management}",
            **{**files, **options},
        )

    @property
    def own(self) -> Settings:
        return self.settings(self._shop)

    def demand_certificates(self) -> None:
        """As `ssl_options.fail_if_no_peer_cert` does."""
        self.node.ctl(
            "eval",
            f"""R = rabbit_networking:ranch_ref({{127,0,0,1}}, {self._port}), ok = ranch:suspend_listener(R),
            T = ranch:get_transport_options(R), S = maps:get(socket_opts, T),
            O = lists:keystore(fail_if_no_peer_cert, 1, S, {{fail_if_no_peer_cert, true}}),
            ok = ranch:set_transport_options(R, T#{{socket_opts => O}}), ok = ranch:resume_listener(R).""",
        )


def conf(ports: list[ReservedPort], authority: Authority) -> str:
    pair = authority.sign("localhost")
    amqp, management = ports
    return f"""
        listeners.ssl.default = 127.0.0.1:{amqp.number}
        ssl_options.cacertfile = {authority.file}
        ssl_options.certfile = {pair.certificate}
        ssl_options.keyfile = {pair.key}
        ssl_options.verify = verify_peer
        ssl_options.fail_if_no_peer_cert = false
        management.ssl.ip = 127.0.0.1
        management.ssl.port = {management.number}
        management.ssl.certfile = {pair.certificate}
        management.ssl.keyfile = {pair.key}
        """


@pytest.fixture(params=VERSIONS)
def secured(request: pytest.FixtureRequest, authority: Authority) -> Iterator[Secured]:
    ports = [reserve(), reserve()]
    node = PrivateNode(_installation(request.param), conf=conf(ports, authority))
    with node:
        yield Secured(node, ports[0].number, ports[1].number, authority)
    for port in ports:
        port.close()


async def test_rabbitmq_and_both_clients(
    secured: Secured, authority: Authority, stranger: Authority, start_worker: StartWorker, tmp_path: Path
) -> None:
    ran = []
    consumer = Consumer("emails")

    @consumer.job()
    async def welcome(number: int) -> None:
        ran.append(number)

    # Without a certificate of one's own, where RabbitMQ does not ask for one.
    for client in CLIENTS:
        await connect(client, secured.settings())
        with pytest.raises(ConfigurationError, match="for another host"):
            await connect(
                client, secured.settings(url=secured.own.amqp_url.replace("localhost", "127.0.0.1"))
            )
        with pytest.raises(ConfigurationError, match="does not speak TLS; is this the port of amqp://"):
            await connect(client, secured.settings(url=secured.node.url.replace("amqp:", "amqps:")))
    with pytest.raises(BrokerUnreachable, match="does it expect TLS"):
        await connect("aio-pika", settings(secured.own.amqp_url.replace("amqps:", "amqp:")))
    assert (await listing(secured.settings())).url.startswith("https://localhost")

    secured.demand_certificates()
    refused = (ConfigurationError, BrokerUnreachable)  # RabbitMQ may hang up before its reason is read
    for client in CLIENTS:
        with pytest.raises(refused, match=r"wants? a client certificate"):
            await connect(client, secured.settings(publish_timeout=1))
        for pair in stranger.sign("shop.example"), authority.sign("shop.example", expired=True):
            with pytest.raises(refused, match="the client certificate"):
                await connect(client, secured.settings(pair, publish_timeout=1))

    # With one, jobs are sent by either client, and run.
    await start_worker(consumer, settings=secured.own)
    with Client(settings=secured.own) as sender:
        await asyncio.to_thread(sender.send, "emails.welcome", {"number": 1})
        await sender.asend("emails.welcome", {"number": 2})
        await eventually_async(lambda: sorted(ran) == [1, 2])
        await sender.aclose()
