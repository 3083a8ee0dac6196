"""Real brokers for tests: one private node per RabbitMQ version, a fresh virtual host per test.

`RABBITMQ="3.10 4.3"` says which versions; without it these two are fetched, or, where that is impossible, the
installed one is used. No broker is a failure, never a skip.
"""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import urllib.request
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress

import pytest

from brokerjobs import Consumer, Worker
from brokerjobs import settings as settings_module
from brokerjobs.client import Client
from brokerjobs.node.errors import RabbitMQUnavailable
from brokerjobs.node.fetch import default_cache, fetch
from brokerjobs.node.installation import Installation, find
from brokerjobs.node.private import PrivateNode
from brokerjobs.settings import Settings
from brokerjobs.transport import use_sender

BY_LIBRARY = "all through the client library"
VERSIONS = os.environ.get("RABBITMQ", "3.10 4.3").split()

# For what RabbitMQ's version cannot matter to.
one_version = pytest.mark.parametrize("node", ["4.3"], indirect=True)

StartWorker = Callable[..., Awaitable[Worker]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep each version's tests in one process, so that each version needs one node.

    Those of one version alone are kept together beside them: they would make one process end long after the others. The
    way through the client library, which nobody takes as long as that is one we know, is tried on one version.
    """
    items[:] = [
        item for item in items if not (_by_library(item) and _version(item) not in ("", VERSIONS[-1]))
    ]
    for item in items:
        if version := _version(item):
            item.add_marker(pytest.mark.broker)
            item.add_marker(pytest.mark.xdist_group(f"rabbitmq-{version}{' alone' if _alone(item) else ''}"))


def _parameters(item: pytest.Item) -> dict[str, object]:
    return dict(item.callspec.params) if hasattr(item, "callspec") else {}


def _version(item: pytest.Item) -> str:
    return str(_parameters(item).get("node", ""))


def _alone(item: pytest.Item) -> bool:
    """Whether its version is the only one that it is tried on."""
    says_which = any(marker.args[0] == "node" for marker in item.iter_markers("parametrize"))
    return says_which or _by_library(item)


def _by_library(item: pytest.Item) -> bool:
    return any(BY_LIBRARY in value for value in _parameters(item).values() if isinstance(value, str))


@pytest.fixture(scope="session", autouse=True)
def _signals_of_a_terminal() -> None:
    """What a shell starts in the background ignores these, and so would all commands that tests run."""
    for number, handler in (signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def nodes() -> Iterator[Callable[[str], PrivateNode]]:
    started: dict[str, PrivateNode] = {}

    def node_of(version: str) -> PrivateNode:
        if version not in started:
            started[version] = PrivateNode(_installation(version)).start()
        return started[version]

    yield node_of
    for node in started.values():
        node.close()


def _installation(version: str) -> Installation:
    try:
        return fetch(version, default_cache())
    except RabbitMQUnavailable:
        installed = find()
        if installed is not None and "RABBITMQ" not in os.environ:
            return installed
        raise


@pytest.fixture(params=VERSIONS)
def node(request: pytest.FixtureRequest, nodes: Callable[[str], PrivateNode]) -> PrivateNode:
    """A running node; shared by tests, so do not stop or kill it."""
    return nodes(request.param)


@pytest.fixture
def vhost(node: PrivateNode) -> Iterator[str]:
    """A fresh virtual host."""
    name = _make_vhost(node)
    yield name
    management(node, "DELETE", f"/api/vhosts/{name}")


def _make_vhost(node: PrivateNode) -> str:
    name = f"test-{uuid.uuid4().hex[:8]}"
    management(node, "PUT", f"/api/vhosts/{name}")
    return name


@pytest.fixture(scope="session")
def own_nodes() -> Iterator[dict[tuple[int, int, int], PrivateNode]]:
    started: dict[tuple[int, int, int], PrivateNode] = {}
    yield started
    for node in started.values():
        node.close()


@pytest.fixture
def own_node(node: PrivateNode, own_nodes: dict[tuple[int, int, int], PrivateNode]) -> Iterator[PrivateNode]:
    """A node of the same version as `node` to freeze, end or put under an alarm; who raises one takes it back."""
    if node.version not in own_nodes:
        own_nodes[node.version] = PrivateNode(node.installation)
    own = own_nodes[node.version]
    if not own.is_running:
        own.start()
    yield own
    if own.is_running:
        own.resume()


@pytest.fixture
def own_url(own_node: PrivateNode) -> str:
    """A fresh virtual host on it."""
    return _url(own_node, _make_vhost(own_node))


def management(node: PrivateNode, method: str, path: str, body: bytes | None = None) -> bytes:
    """One call of the management HTTP API."""
    request = urllib.request.Request(
        node.http_url.replace("guest:guest@", "") + path,
        data=body,
        method=method,
        headers={
            "Authorization": "Basic " + base64.b64encode(b"guest:guest").decode(),
            "Content-Type": "application/json",
        },
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return bytes(answer.read())


@pytest.fixture
def url(node: PrivateNode, vhost: str) -> str:
    return _url(node, vhost)


def _url(node: PrivateNode, vhost: str) -> str:
    return node.url.rpartition("/")[0] + "/" + vhost


@pytest.fixture
def settings(url: str) -> Settings:
    """Settings for the fresh virtual host, with short waits."""
    return settings_module.load(
        url=url,
        unknown_job_delay=0.25,
        publish_timeout=15.0,
        drain_timeout=10.0,
        sweep_interval=0.5,
        metrics_port="none",
    )


@pytest.fixture
def environment(url: str, tmp_path: os.PathLike[str]) -> dict[str, str]:
    """The environment for commands that a test runs: this broker, and nothing of the developer's own settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BROKERJOBS_")}
    return {
        **kept,
        "BROKERJOBS_URL": url,
        "BROKERJOBS_UNKNOWN_JOB_DELAY": "0.25",
        "BROKERJOBS_METRICS_PORT": "none",  # there are many workers on this machine
        "PYTHONUNBUFFERED": "1",
    }


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Client]:
    """A client that `job.send` uses too."""
    client = Client(settings=settings)
    before = use_sender(client)
    yield client
    use_sender(before)
    await client.aclose()


@pytest.fixture
async def start_worker(settings: Settings) -> AsyncIterator[StartWorker]:
    """Start a worker for consumers and wait until it consumes; it is stopped at the end of the test."""
    started: list[tuple[Worker, asyncio.Task[object]]] = []

    async def start(*consumers: Consumer, settings: Settings = settings, **options: object) -> Worker:
        worker = Worker(consumers, settings, **options)  # type: ignore[arg-type]
        running = asyncio.create_task(worker.run())
        consuming = asyncio.create_task(worker.consuming())
        started.append((worker, running))
        await asyncio.wait({running, consuming}, return_when=asyncio.FIRST_COMPLETED, timeout=60)
        consuming.cancel()
        with suppress(asyncio.CancelledError):
            await consuming
        if running.done():
            running.result()
        return worker

    yield start
    for worker, _ in started:
        worker.stop()
    async with asyncio.timeout(60):
        await asyncio.gather(*(running for _, running in started), return_exceptions=True)
