"""Blocking sends whose caller drives the connection itself: what interrupts it, or keeps it away, hurts no send."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType

import pytest

from brokerjobs import Client, PublishUnknown
from brokerjobs.amqp import driving
from brokerjobs.amqp.owner import Owner
from brokerjobs.amqp.sending import Sending
from brokerjobs.node.private import PrivateNode
from tests import amqp
from tests.chaos.proxy import Proxy
from tests.management import open_ports
from tests.waiting import eventually


class Interrupted(BaseException):
    """As KeyboardInterrupt is, at any place."""


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with amqp.channel(url) as channel:
        channel.exchange_declare("jobs", "topic", durable=True)
        channel.queue_declare("emails", durable=True)
        channel.queue_bind("emails", "jobs", "emails.#")
    with Client(url, heartbeat=2) as client:
        client.send("emails.first")
        yield client
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("brokerjobs")]


@contextmanager
def alarms(handler: Callable[[], None]) -> Iterator[None]:
    """The handler runs in this thread, now and then, at any place."""

    def run(_: int, __: FrameType | None) -> None:
        handler()

    before = signal.signal(signal.SIGALRM, run)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def alarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0002, 0.003))


def owner(client: Client) -> Owner:
    assert client._blocking._owner is not None
    return client._blocking._owner


def ids(url: str) -> list[str]:
    return [found.properties.message_id for found in amqp.peek(url, "emails")]


def test_interrupts_lose_nothing_and_keep_nobody_waiting(client: Client, url: str, node: PrivateNode) -> None:
    confirmed: list[str] = []
    stop = threading.Event()
    longest = 0.0

    def keep_sending() -> None:
        nonlocal longest
        while not stop.is_set():
            began = time.monotonic()
            confirmed.append(client.send("emails.other").id)
            longest = max(longest, time.monotonic() - began)
            stop.wait(0.003)

    def interrupt() -> None:
        raise Interrupted

    owners = {owner(client)}
    enough = time.monotonic() + 20
    with ThreadPoolExecutor() as threads, alarms(interrupt):
        other = threads.submit(keep_sending)
        try:
            while len(owners) < 30 and time.monotonic() < enough:
                confirmed.append(client.send("emails.welcome").id)
                owners.add(owner(client))
                try:
                    alarm()
                    for _ in range(100):
                        confirmed.append(client.send("emails.welcome").id)
                except Interrupted:
                    pass
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
        finally:
            stop.set()
        other.result(60)

    assert len(owners) == 30, "each is interrupted while a caller drives"
    assert longest < 5
    confirmed.append(client.send("emails.welcome").id)
    assert set(confirmed) <= set(ids(url))
    eventually(lambda: len(open_ports(node)) == 1)


def test_the_handler_of_a_signal_sends_within_a_send(client: Client, url: str) -> None:
    sent: list[str] = []
    within = 0

    def send() -> None:
        nonlocal within
        within += owner(client).is_within
        sent.append(client.send("emails.signal").id)

    with alarms(send):
        while within < 5:
            alarm()
            sent += [client.send("emails.welcome").id for _ in range(10)]
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert set(sent) <= set(ids(url))


def test_heartbeats_go_on_while_nobody_sends(client: Client) -> None:
    client.send("emails.welcome")
    connection = owner(client)._connection
    assert connection is not None
    sent = connection.bytes_sent
    eventually(lambda: connection.bytes_sent >= sent + 2 * 8, what="two heartbeats, of 8 bytes")
    client.send("emails.welcome")
    assert owner(client)._connection is connection


def test_a_client_is_closed_while_a_caller_drives(
    client: Client, node: PrivateNode, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driving, "PATIENCE", 20.0)
    with (
        Proxy(node.ports.amqp) as proxy,
        ThreadPoolExecutor() as threads,
        Client(url.replace(f":{node.ports.amqp}/", f":{proxy.port}/"), publish_timeout=60) as cut_off,
    ):
        cut_off.send("emails.welcome")
        eventually(lambda: owner(cut_off)._driving._driver is None)
        proxy.set("hole-in")
        sending = threads.submit(cut_off.send, "emails.welcome")
        eventually(lambda: amqp.ready(url, "emails") == 3)
        assert isinstance(owner(cut_off)._driving._driver, Sending)
        began = time.monotonic()
        cut_off.close()
        with pytest.raises(PublishUnknown, match="closed"):
            sending.result(10)
        assert time.monotonic() - began < 5
