"""RabbitMQ's management HTTP API: the one question that AMQP cannot answer, asked with the standard library.

Every question has a deadline, follows no redirect, takes no proxy and reads no more than a limit: the password goes
to the address that was asked for and to no other.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

from brokerjobs import tls
from brokerjobs.node import state
from brokerjobs.settings import Settings

T = TypeVar("T")

TIMEOUT = 3.0  # seconds
LIMIT = 64 * 1024 * 1024  # bytes of an answer; about 500 a queue
_CHUNK = 64 * 1024
_PORT_OFFSET = 10_000  # 5672 and 15672, 5671 and 15671; a second node on a host is set up alike


@dataclass(frozen=True, slots=True)
class Listing:
    """What the API says.

    Args:
        unacked: for each queue of the virtual host, how many deliveries are unacknowledged.
        cluster_name: whose API it is; AMQP tells the same name.
        url: where it is.
    """

    unacked: Mapping[str, int]
    cluster_name: str = ""
    url: str = ""


class ManagementUnavailable(Exception):
    """The API does not answer; says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the API is, and as whom to ask.

    Args:
        url: without a password.
        user: of RabbitMQ.
        password: theirs.
        secured: how to use TLS, where the URL asks for it.
    """

    url: str
    user: str
    password: str = field(repr=False)
    secured: ssl.SSLContext | None = field(default=None, compare=False)


def address_of(settings: Settings) -> Address:
    """The API of the broker in the settings.

    As set, else that of the node that `brokerjobs broker start` runs, else at the port that goes with the broker's.
    """
    broker = urlsplit(settings.amqp_url)
    given = settings.management_url.get_secret_value() if settings.management_url else _url_beside(settings)
    parts = urlsplit(given)
    whose = parts if parts.username else broker
    host = parts.netloc.rpartition("@")[2]
    return Address(
        url=f"{parts.scheme}://{host}{parts.path.rstrip('/')}",
        user=unquote(whose.username or "guest"),
        password=unquote(whose.password or "guest"),
        secured=tls.context(settings) if parts.scheme == "https" else None,
    )


def _url_beside(settings: Settings) -> str:
    running = state.running()
    if running and _place(running.url) == _place(settings.amqp_url):
        return running.management_url
    broker, (_, port) = urlsplit(settings.amqp_url), _place(settings.amqp_url)
    host = f"[{broker.hostname}]" if ":" in (broker.hostname or "") else broker.hostname
    return f"{'https' if broker.scheme == 'amqps' else 'http'}://{host}:{port + _PORT_OFFSET}"


def _place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    host = "127.0.0.1" if parts.hostname in (None, "localhost", "::1") else parts.hostname
    return host, parts.port or (5671 if parts.scheme == "amqps" else 5672)


async def listing(settings: Settings, timeout: float = TIMEOUT) -> Listing:
    """Ask for the queues of the virtual host.

    Args:
        settings: which broker and virtual host.
        timeout: seconds for all of it.

    Raises:
        ManagementUnavailable: it cannot be asked.
    """
    address = address_of(settings)
    vhost = quote(unquote(urlsplit(settings.amqp_url).path[1:]) or "/", safe="")
    queues_path = f"/api/queues/{vhost}?disable_stats=true&enable_queue_totals=true"
    deadline = time.monotonic() + timeout
    try:
        async with asyncio.timeout(timeout):
            cluster, queues = await _in_thread(
                lambda: [_get(address, path, deadline) for path in ("/api/cluster-name", queues_path)]
            )
        unacked = {str(queue["name"]): int(queue.get("messages_unacknowledged") or 0) for queue in queues}
        return Listing(unacked, str(cluster["name"]), address.url)
    except (OSError, http.client.HTTPException, ArithmeticError, LookupError, ValueError, TypeError) as error:
        raise ManagementUnavailable(_why(error, address, timeout)) from None


def _get(address: Address, path: str, deadline: float) -> Any:
    credentials = base64.b64encode(f"{address.user}:{address.password}".encode()).decode()
    request = urllib.request.Request(address.url + path, headers={"Authorization": f"Basic {credentials}"})
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=address.secured), _NoRedirect()
    )
    try:
        with opener.open(request, timeout=max(0.1, deadline - time.monotonic())) as answer:
            return json.loads(_read(answer, deadline))
    except urllib.error.HTTPError as error:
        error.close()
        raise


def _read(answer: http.client.HTTPResponse, deadline: float) -> bytes:
    body = bytearray()
    while chunk := answer.read1(_CHUNK):
        body += chunk
        if len(body) > LIMIT:
            raise OSError(f"it answers more than {LIMIT} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError
    return bytes(body)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


async def _in_thread(call: Callable[[], T]) -> T:
    """In a thread that nothing waits for at the end: a peer that answers byte by byte must not hold up an exit."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    outcome: list[T | BaseException] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as error:
            outcome.append(error)
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, name="management API", daemon=True).start()
    await done.wait()
    (result,) = outcome
    if isinstance(result, BaseException):
        raise result
    return result


def _why(error: BaseException, address: Address, timeout: float) -> str:
    where, reason = f"the management API at {address.url}", error
    if isinstance(error, urllib.error.HTTPError):
        match error.code:
            case 401 | 403:
                return f"{where} refuses user {address.user!r}, who needs the tag management"
            case 404:
                return f"{where} does not know the virtual host, or is none; set management_url"
            case code:
                return f"{where} answers {code}; set management_url"
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        reason = error.reason
    match reason:
        case TimeoutError() | socket.timeout():
            return f"{where} gave no answer within {timeout:g} s; set management_url"
        case ConnectionRefusedError():
            return (
                f"nothing answers at {address.url}; run `rabbitmq-plugins enable rabbitmq_management`, "
                "or set management_url"
            )
        case OSError():
            return f"{where} cannot be reached ({reason.strerror or reason}); set management_url"
    return f"what answers at {address.url} is not RabbitMQ's management API; set management_url"
