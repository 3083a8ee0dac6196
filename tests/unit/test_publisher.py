"""What a send is told, from what its tries met."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from brokerjobs import BrokerUnreachable, Message, PublishRefused, PublishUnknown, Unroutable
from brokerjobs import settings as settings_module
from brokerjobs.amqp.publisher import Publisher
from brokerjobs.transport import Publication

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
