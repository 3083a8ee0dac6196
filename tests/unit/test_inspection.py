"""Which queues are ours, where the management API is, and what is said when it does not answer."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import SecretStr

from brokerjobs.errors import ConfigurationError
from brokerjobs.inspection import management
from brokerjobs.inspection.management import Address, Listing, ManagementUnavailable, address_of, listing
from brokerjobs.inspection.snapshot import found
from brokerjobs.node import state
from brokerjobs.settings import Settings, load
from brokerjobs.topology import Names

Answer = Callable[[BaseHTTPRequestHandler], None]


# -- which queues are ours


def test_queues_are_those_with_a_dead_letter_queue_beside_them() -> None:
    names = [
        "emails",
        "emails.dead",
        "emails.dead.reader",
        "other",
        "orders.dead",
        "jobs",
        "jobs.dead",
        "UP",
        "UP.dead",
    ]
    assert found(names, Names()) == ["emails"]


def test_queues_of_another_namespace_are_not_ours() -> None:
    names = ["emails", "emails.dead", "shop.orders", "shop.orders.dead", "shop", "shop.dead"]
    assert found(names, Names("shop")) == ["orders"]
    assert found(names, Names()) == ["emails", "shop"]


# -- where the API is


def settings(url: str, management_url: str | None = None) -> Settings:
    return Settings(url=SecretStr(url), management_url=SecretStr(management_url) if management_url else None)


@pytest.mark.parametrize(
    ("url", "management_url", "address"),
    [
        ("amqp://a:b@host/", None, Address("http://host:15672", "a", "b")),
        ("amqps://a:b@host/", None, Address("https://host:15671", "a", "b")),
        ("amqp://host:5673/", None, Address("http://host:15673", "guest", "guest")),
        ("amqp://a%2Fb:c%40d@[::1]/x", None, Address("http://[::1]:15672", "a/b", "c@d")),
        ("amqp://a:b@host/", "https://ui.host/rabbit/", Address("https://ui.host/rabbit", "a", "b")),
        ("amqp://a:b@host/", "http://c:d@host:8080", Address("http://host:8080", "c", "d")),
    ],
)
def test_address_is_as_set_or_beside_the_broker(
    url: str, management_url: str | None, address: Address
) -> None:
    assert address_of(settings(url, management_url)) == address


def test_address_of_the_private_node_is_the_one_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    running = state.State(
        url="amqp://guest:guest@127.0.0.1:5672/%2F", management_url="http://127.0.0.1:4711", prometheus_url="",
        version="4.3.6", pid=1, name="", folder="", log="", epmd_port=0, started_at=0.0,
    )  # fmt: skip
    monkeypatch.setattr(state, "running", lambda: running)
    assert address_of(settings("amqp://guest:guest@localhost/shop")).url == "http://127.0.0.1:4711"
    assert address_of(settings("amqp://guest:guest@elsewhere/")).url == "http://elsewhere:15672"


@pytest.mark.parametrize(
    "url", ["ftp://host", "host:15672", "http://", "http://a:b@c:host", "file:///etc/passwd"]
)
def test_setting_that_is_no_http_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="management_url"):
        load(management_url=url)


# -- what it answers


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], Settings]]:
    """Serve one answer to all questions; gives settings that ask there."""
    servers: list[ThreadingHTTPServer] = []

    def serve(answer: Answer) -> Settings:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer(self)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return settings("amqp://shop:secret@127.0.0.1:1/my%2Fhost", f"http://127.0.0.1:{server.server_port}")

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def reply(handler: BaseHTTPRequestHandler, code: int, body: bytes = b"", **headers: str) -> None:
    handler.send_response(code)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


async def why(asked: Settings, timeout: float = 5.0) -> str:
    with pytest.raises(ManagementUnavailable) as caught:
        await listing(asked, timeout)
    assert "secret" not in str(caught.value)
    return str(caught.value)


async def test_listing_asks_for_the_virtual_host_with_the_users_password(
    serve: Callable[[Answer], Settings],
) -> None:
    asked = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked.append((handler.path, handler.headers["Authorization"]))
        queues = [{"name": "emails", "messages_unacknowledged": 3}, {"name": "starting"}]
        name = {"name": "rabbit@here"}
        reply(handler, 200, json.dumps(name if "cluster" in handler.path else queues).encode())

    chosen = serve(answer)
    url = address_of(chosen).url
    assert await listing(chosen) == Listing({"emails": 3, "starting": 0}, "rabbit@here", url)
    path, authorization = asked[-1]
    assert path == "/api/queues/my%2Fhost?disable_stats=true&enable_queue_totals=true"
    assert authorization == "Basic c2hvcDpzZWNyZXQ="


@pytest.mark.parametrize(
    ("code", "body", "words"),
    [
        (401, b"", "refuses user 'shop', who needs the tag management"),
        (404, b"", "does not know the virtual host"),
        (500, b"", "answers 500"),
        (200, b"<html>", "is not RabbitMQ's management API"),
        (200, b'{"name": "x"}', "is not RabbitMQ's management API"),
        (200, b"[1]", "is not RabbitMQ's management API"),
        (200, b"\xff", "is not RabbitMQ's management API"),
    ],
)
async def test_answer_that_is_no_listing_is_said(
    serve: Callable[[Answer], Settings], code: int, body: bytes, words: str
) -> None:
    assert words in await why(serve(lambda handler: reply(handler, code, body)))


async def test_redirect_is_not_followed_so_the_password_goes_nowhere_else(
    serve: Callable[[Answer], Settings],
) -> None:
    visited = []

    def elsewhere(handler: BaseHTTPRequestHandler) -> None:
        visited.append(handler.path)
        reply(handler, 200, b"[]")

    other = address_of(serve(elsewhere)).url
    assert "answers 302" in await why(serve(lambda handler: reply(handler, 302, Location=other)))
    assert not visited


async def test_proxy_of_the_environment_is_not_used(
    serve: Callable[[Answer], Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    assert "answers 500" in await why(serve(lambda handler: reply(handler, 500)))


async def test_peer_that_answers_byte_by_byte_is_left_at_the_deadline(
    serve: Callable[[Answer], Settings],
) -> None:
    ended = threading.Event()

    def trickle(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not ended.wait(0.05):
            try:
                handler.wfile.write(b"X: y\r\n")
            except OSError:
                return

    began = time.monotonic()
    assert "no answer within 0.4 s" in await why(serve(trickle), 0.4)
    assert time.monotonic() - began < 3.0
    ended.set()


async def test_answer_without_end_is_cut_off(
    serve: Callable[[Answer], Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(management, "LIMIT", 1000)
    assert "answers more than 1000 bytes" in await why(
        serve(lambda handler: reply(handler, 200, b" " * 5000))
    )


async def test_nobody_there_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    said = await why(settings("amqp://shop:secret@127.0.0.1/", f"http://127.0.0.1:{port}"))
    assert "rabbitmq-plugins enable rabbitmq_management" in said
    assert "set management_url" in await why(settings("amqp://shop:secret@127.0.0.1:60000/"))
    assert "set management_url" in await why(settings("amqp://shop:secret@no.such.host.invalid/"))
