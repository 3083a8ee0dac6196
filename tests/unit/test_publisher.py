"""What a send is told, from what its tries met."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest
from aiormq.exceptions import ChannelNotFoundEntity
from pika.exceptions import ChannelClosedByBroker

from brokerjobs import (
    BrokerUnreachable,
    ConfigurationError,
    Message,
    PublishRefused,
    PublishUnknown,
    Unroutable,
)
from brokerjobs import settings as settings_module
from brokerjobs.amqp.alarm import BLOCKED, Alarm
from brokerjobs.amqp.connection import Connection
from brokerjobs.amqp.frames import METHOD
from brokerjobs.amqp.links import Link, Links
from brokerjobs.amqp.owner import Owner
from brokerjobs.amqp.publisher import Publisher
from brokerjobs.amqp.sending import Sending
from brokerjobs.connection_record import ConnectionRecord
from brokerjobs.metrics import CONSUMER, PUBLISHER, Metrics
from brokerjobs.transport import Publication
from tests.waiting import eventually_async

LOST = ConnectionError("gone")
UNREACHABLE = BrokerUnreachable("nobody answers")
UNROUTABLE = Unroutable("no queue")


async def told(
    monkeypatch: pytest.MonkeyPatch, connects: list[Exception | None], sends: list[Exception]
) -> str:
    """What a send is told whose tries to connect, and then to send, end like this; the last of them for ever."""

    def each(outcomes: list[Exception | None]) -> Iterator[Exception | None]:
        yield from outcomes
        while True:
            yield outcomes[-1]

    publisher = Publisher(settings_module.load(url="amqp://localhost"))
    connecting, sending = each(connects), each(list(sends))

    async def get() -> None:
        if (error := next(connecting)) is not None:
            raise error

    async def send(*_: object) -> None:
        if (error := next(sending)) is not None:
            raise error

    monkeypatch.setattr(publisher._links, "get", get)
    monkeypatch.setattr(publisher, "_send", send)
    with pytest.raises((PublishRefused, PublishUnknown)) as raised:
        await publisher.publish(
            Publication("jobs", "a.b", Message(job="a.b", routing_key="a.b")), timeout=0.3
        )
    await publisher.close()
    return type(raised.value).__name__


@pytest.mark.parametrize(
    ("connects", "sends", "fate"),
    [
        pytest.param([UNREACHABLE], [LOST], "BrokerUnreachable", id="never connected"),
        pytest.param([None], [UNROUTABLE], "Unroutable", id="refused at the first try"),
        pytest.param([None], [LOST], "PublishUnknown", id="lost each time"),
        pytest.param([None], [LOST, UNROUTABLE], "PublishUnknown", id="lost, then refused"),
        pytest.param([None, UNREACHABLE], [LOST], "PublishUnknown", id="lost, then nobody answered"),
        pytest.param([None], [UNREACHABLE], "PublishUnknown", id="nobody answered in the middle of a try"),
    ],
)
async def test_what_was_written_without_a_verdict_is_unknown(
    connects: list[Exception | None], sends: list[Exception], fate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await told(monkeypatch, connects, sends) == fate


async def test_what_is_refused_after_its_channel_was_closed_by_another_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of several in flight RabbitMQ minds one; those before it may be queued, and their confirms are lost."""
    publisher = Publisher(settings_module.load(url="amqp://localhost"))
    minded = ChannelNotFoundEntity("NOT_FOUND - no exchange 'jobs'")
    for second_try in minded, UNROUTABLE:
        tries: Iterator[Exception] = iter([minded, second_try])

        async def frames(*_: object, tries: Iterator[Exception] = tries) -> None:
            raise next(tries)

        link: Any = FakeLink()
        monkeypatch.setattr(publisher, "_frames", frames)
        monkeypatch.setattr(publisher._links, "get", link.get)
        publication = Publication("jobs", "a.b", Message(job="a.b", routing_key="a.b"))
        with (
            publisher._links.flight(link),
            pytest.raises(PublishUnknown, match=r"no exchange|no queue") as raised,
        ):
            await publisher.publish(publication, timeout=5)
        assert str(raised.value).count("did not confirm") == 1
    await publisher.close()


class FakeLink(Link):
    """One connection, with a channel that does what the test says."""

    def __init__(self) -> None:
        self.channel = self.connection = self  # type: ignore[assignment]
        self.outlet = None
        self.in_flight = self.begun = 0
        self.is_retired = False

    async def get(self) -> FakeLink:
        return self

    @asynccontextmanager
    async def scratch_channel(self, **_: object) -> AsyncIterator[FakeLink]:
        yield self


@pytest.mark.parametrize(("returned", "fate"), [(False, PublishUnknown), (True, Unroutable)])
def test_likewise_in_threads_unless_it_was_returned(returned: bool, fate: type[Exception]) -> None:
    owner = Owner(settings_module.load(url="amqp://localhost"), lambda *_: None)
    sendings = [Sending(Publication("jobs", "a.b", Message(job="a.b", routing_key="a.b"))) for _ in range(2)]
    for sending in sendings:
        sending.written = True
        owner._unconfirmed.add(sending, sending.id)
    if returned:
        owner._unconfirmed.give_back(sendings[0].id, "312 NO_ROUTE")
    owner._channel_closed(None, ChannelClosedByBroker(404, "NOT_FOUND - no exchange 'jobs'"))

    owner._loop.close()
    sendings[0].refuse(UNROUTABLE)

    with pytest.raises(fate):
        sendings[0].answer(0)


@pytest.fixture
async def counted(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SimpleNamespace]:
    """Links whose tries to connect end as `outcomes` says, and what is counted of them."""
    metrics = Metrics()
    metrics.prepare_worker("1.2.3")
    settings = settings_module.load(url="amqp://localhost")
    own = SimpleNamespace(
        metrics=metrics,
        links=Links(settings, "publisher", ConnectionRecord(metrics, PUBLISHER)),
        figures=lambda: (
            metrics.connected.labels(PUBLISHER).value,
            metrics.reconnects.labels(PUBLISHER).value,
        ),
        outcomes=[],
    )

    async def open(*_: object) -> Any:
        if isinstance(outcome := own.outcomes.pop(0), Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(Connection, "open", open)
    yield own
    await own.links.close()
    assert own.links._seeking is None


class Open:
    """A connection, as far as links ask it."""

    def __init__(self) -> None:
        self.alarm = Alarm()
        self.is_closed = False
        self.streams = None

    async def channel(self, **_: object) -> Open:
        return self

    async def close(self) -> None:
        self.is_closed = True


async def test_connections_that_are_wanted_are_counted(counted: SimpleNamespace) -> None:
    connection = Open()
    counted.outcomes[:] = [connection, connection, UNREACHABLE]
    seen = []
    while counted.outcomes:
        with suppress(BrokerUnreachable):
            await counted.links._connect()
        seen.append(counted.figures())

    assert seen == [(1, 0), (1, 1), (0, 1)]
    connection.alarm.tap(METHOD, BLOCKED, 0, 4)
    assert counted.metrics.blocked.labels(PUBLISHER).value > 0
    assert counted.metrics.blocked.labels(CONSUMER).value == 0


async def test_a_connection_that_could_not_be_had_is_sought_though_nobody_publishes(
    counted: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who published has given up: nobody else would find out that it can be had again, and an alert would stay."""
    monkeypatch.setattr("brokerjobs.amqp.links.REST", 0.001)
    counted.outcomes[:] = [UNREACHABLE, UNREACHABLE, ConfigurationError("wrong password"), Open()]

    with pytest.raises(BrokerUnreachable):
        await counted.links.get()
    assert counted.figures() == (0, 0)

    await eventually_async(lambda: counted.figures() == (1, 0))
    assert not counted.outcomes
    assert counted.links.current is not None


async def test_nothing_is_sought_any_more_when_it_is_closed(counted: SimpleNamespace) -> None:
    counted.outcomes[:] = [UNREACHABLE]
    with pytest.raises(BrokerUnreachable):
        await counted.links.get()

    await asyncio.wait_for(counted.links.close(), 1)

    assert counted.links._seeking is None
