"""A stream tells of each message what a single send would tell, whatever RabbitMQ does with those around it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pamqp.frame
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import commands, header
from tenacity import wait_none

from brokerjobs import Message, PublishUnknown, Unroutable
from brokerjobs import settings as settings_module
from brokerjobs.amqp import links, outlet, publisher
from brokerjobs.amqp.alarm import Alarm
from brokerjobs.amqp.frames import Splitter
from brokerjobs.amqp.outlet import Outlet
from brokerjobs.amqp.publisher import Publisher
from brokerjobs.amqp.stream import REFILL, WINDOW, Sent, Stream
from brokerjobs.errors import InvalidArguments
from brokerjobs.transport import Publication
from tests.waiting import eventually_async

CHANNEL = 1


class Broker:
    """Answers each message as its script says, one word a try: ack, nack, return, lose, silence; in the end by ack."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **scripts: list[str]) -> None:
        self.scripts = scripts
        self.acked: list[str] = []
        self.connections: list[Connection] = []
        self.most_unanswered = 0
        self.leave: Callable[[], object] = lambda: None

        async def open(*_: object) -> Connection:
            self.connections.append(Connection(self))
            return self.connections[-1]

        monkeypatch.setattr("brokerjobs.amqp.links.Connection.open", open)
        monkeypatch.setattr(links, "_outlet_of", lambda connection, _: connection.outlet)
        monkeypatch.setattr(publisher, "BACKOFF", wait_none())

    def next_word(self, id: str) -> str:
        script = self.scripts.get(id)
        return script.pop(0) if script else "ack"


class Connection:
    """One connection, with one channel; it is its outlet's writer, and that writer's transport."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.is_closed = False
        self.alarm = Alarm()
        self.outlet = Outlet(CHANNEL, self, 4096)  # type: ignore[arg-type]
        self.splitter = Splitter()
        self.splitter.taps[CHANNEL] = self.outlet.tap
        self.published = self.answered = 0
        self.transport = self
        self.buffered = 0

    async def channel(self, **_: object) -> Connection:
        return self

    async def close(self) -> None:
        self.lose()

    def is_closing(self) -> bool:
        return self.is_closed

    def get_write_buffer_size(self) -> int:
        return self.buffered

    async def drain(self) -> None: ...

    def write(self, data: bytes) -> None:
        while data:
            length, _, frame = pamqp.frame.unmarshal(data)
            data = data[length:]
            if isinstance(frame, header.ContentHeader):
                self.published += 1
                id = str(frame.properties.message_id)
                asyncio.get_running_loop().call_soon(self.answer, self.published, id)
        unanswered = self.published - self.answered
        self.broker.most_unanswered = max(self.broker.most_unanswered, unanswered)

    def answer(self, number: int, id: str) -> None:
        if self.is_closed:
            return
        self.answered += 1
        word = self.broker.next_word(id)
        if word == "lose":
            self.lose()
        if word == "return":
            self.say(commands.Basic.Return(312, "NO_ROUTE", "jobs", "a.b"))
            self.say(header.ContentHeader(body_size=0, properties=commands.Basic.Properties(message_id=id)))
        if word == "ack":
            self.broker.acked.append(id)
        if word in ("ack", "return"):
            self.say(commands.Basic.Ack(number))
        if word == "leave":
            self.broker.leave()
        if word in ("nack", "leave"):
            self.say(commands.Basic.Nack(number))

    def say(self, frame: Any) -> None:
        self.splitter.feed(pamqp.frame.marshal(frame, CHANNEL))

    def lose(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.outlet.end(ConnectionResetError("gone"))


def publication(id: str, size: int = 2) -> Publication:
    message = Message(job="a.b", routing_key="a.b", id=id, body=b"x" * size)
    return Publication("jobs", "a.b", message)


async def opened(counts: Counter[str] | None = None) -> Publisher:
    """A publisher that is connected, so that nothing but the script is in a message's way."""
    made = Publisher(
        settings_module.load(url="amqp://localhost"),
        on_published=lambda outcome, *_: counts.update([outcome]) if counts is not None else None,
    )
    await made._links.get()
    return made


def fates(sent: list[Sent]) -> list[str]:
    return [type(one).__name__ for one in sent]


words = st.lists(st.sampled_from(["ack", "nack", "return", "lose"]), max_size=3)


@settings(max_examples=60)
@given(scripts=st.lists(words, min_size=1, max_size=12))
def test_each_message_has_its_own_fate(scripts: list[list[str]]) -> None:
    async def scenario(monkeypatch: pytest.MonkeyPatch) -> None:
        broker = Broker(monkeypatch, **{str(at): list(script) for at, script in enumerate(scripts)})
        counts = Counter[str]()
        sender = await opened(counts)
        sent = await Stream(sender, 10.0).send(publication(str(at)) for at in range(len(scripts)))
        await sender.close()

        lossy = any("lose" in script for script in scripts)
        for at, (script, one) in enumerate(zip(scripts, sent, strict=True)):
            first = next((word for word in script if word in ("ack", "return")), "ack")
            if first == "ack":
                assert isinstance(one, Publication)
                assert str(at) in broker.acked
            elif script[0] == "return" and not lossy:
                assert isinstance(one, Unroutable)
            else:  # written before, so that it may be queued
                assert isinstance(one, Unroutable | PublishUnknown)
        told = Counter("confirmed" if fate == "Publication" else fate for fate in fates(sent))
        assert counts == Counter(
            {"confirmed": told["confirmed"], "refused": told["Unroutable"], "unknown": told["PublishUnknown"]}
        )
        assert not sender._in_flight

    with pytest.MonkeyPatch.context() as monkeypatch:
        asyncio.run(scenario(monkeypatch))


async def test_what_has_no_answer_in_time_is_unknown_and_nothing_else_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker = Broker(monkeypatch, b=["silence"], d=["silence"])
    counts = Counter[str]()
    sender = await opened(counts)
    sent = await Stream(sender, 0.2).send(map(publication, "abcd"))

    assert fates(sent) == ["Publication", "PublishUnknown", "Publication", "PublishUnknown"]
    assert [one.id for one in sent if isinstance(one, PublishUnknown)] == ["b", "d"]
    assert "did not answer in time" in str(sent[1])
    assert counts == {"confirmed": 2, "unknown": 2}
    [used] = broker.connections
    used.say(commands.Basic.Ack(4, multiple=True))  # too late, and nobody minds
    again = await Stream(sender, 5.0).send([publication("b")])
    assert fates(again) == ["Publication"]
    assert len(broker.connections) == 2  # a returned message would tell of the wrong try on the first
    await sender.close()


@pytest.mark.parametrize(
    ("first", "connections"),
    [
        pytest.param(["silence"], 2, id="first try"),
        pytest.param(["nack", "silence"], 2, id="second try"),
        pytest.param(["leave"], 1, id="before the second try"),
    ],
)
async def test_who_is_cancelled_leaves_nothing_in_the_way_of_the_next(
    monkeypatch: pytest.MonkeyPatch, first: list[str], connections: int
) -> None:
    broker = Broker(monkeypatch, a=first)
    counts = Counter[str]()
    sender = await opened(counts)
    sending = asyncio.create_task(Stream(sender, 10.0).send(map(publication, "ab")))
    broker.leave = sending.cancel
    await eventually_async(lambda: bool(broker.acked) and not first)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert (counts, sender._in_flight) == ({"confirmed": 1}, {})
    assert fates(await Stream(sender, 5.0).send(map(publication, "ab"))) == ["Publication"] * 2
    assert len(broker.connections) == connections
    await sender.close()


async def test_who_closes_the_client_leaves_what_was_sent_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker(monkeypatch, a=["silence"])
    sender = await opened()
    sending = asyncio.create_task(Stream(sender, 10.0).send(map(publication, "ab")))
    await eventually_async(lambda: bool(broker.acked))
    await sender.close()
    assert fates(await sending) == ["PublishUnknown", "Publication"]


async def test_one_id_is_under_way_once_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker(monkeypatch, a=["return", "ack"])
    sender = await opened()
    sent = await Stream(sender, 5.0).send(map(publication, "aab"))

    assert fates(sent) == ["Unroutable", "Publication", "Publication"]
    assert sorted(broker.acked) == ["a", "b"]
    await sender.close()


async def test_no_more_than_the_window_is_unconfirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker(monkeypatch)
    sender = await opened()
    held = list[tuple[int, str]]()
    taken = 0

    def many() -> Iterator[Sent]:
        nonlocal taken
        for taken in range(1, 1_201):
            yield publication(str(taken))

    monkeypatch.setattr(Connection, "answer", lambda _, number, id: held.append((number, id)))
    sending = asyncio.create_task(Stream(sender, 5.0).send(many()))
    await eventually_async(lambda: len(held) == WINDOW)
    for _ in range(5):
        await asyncio.sleep(0)  # noqa: TID251  (one turn)
    assert (taken, len(held)) == (WINDOW, WINDOW)
    [connection] = broker.connections
    connection.say(commands.Basic.Ack(REFILL, multiple=True))
    await eventually_async(lambda: taken == WINDOW + REFILL)
    while not sending.done():
        if held and held[-1][0] > connection.answered:
            connection.answered = held[-1][0]
            connection.say(commands.Basic.Ack(connection.answered, multiple=True))
        await asyncio.sleep(0)  # noqa: TID251  (one turn)
    assert taken == len(sending.result()) == 1_200
    await sender.close()


async def test_refused_before_they_were_sent_keep_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    Broker(monkeypatch)
    sender, refused = await opened(), InvalidArguments("no")
    unwritable = publication("x" * 256)
    sent = await Stream(sender, 5.0).send([publication("a"), refused, unwritable, publication("b")])

    assert sent[1] is refused
    assert fates(sent) == ["Publication", "InvalidArguments", "PublishRefused", "Publication"]
    await sender.close()


async def test_what_a_generator_raises_comes_out_when_all_before_have_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker = Broker(monkeypatch, a=["nack", "ack"])
    sender = await opened()

    def failing() -> Iterator[Sent]:
        yield publication("a")
        raise LookupError("no more")

    with pytest.raises(LookupError):
        await Stream(sender, 5.0).send(failing())
    assert broker.acked == ["a"]
    await sender.close()


async def test_large_bodies_wait_while_much_has_not_left(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker(monkeypatch)
    sender = await opened()
    [connection] = broker.connections
    connection.buffered = outlet.CROWDED + 1
    answer = connection.answer
    monkeypatch.setattr(
        connection, "answer", lambda *what: asyncio.get_running_loop().call_later(0.01, answer, *what)
    )
    sent = await Stream(sender, 5.0).send(publication(str(at), 200_000) for at in range(12))

    assert fates(sent) == ["Publication"] * 12
    assert broker.most_unanswered <= 3
    await sender.close()


async def test_each_has_a_deadline_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    Broker(monkeypatch, a=["silence"], b=["silence"])
    sender = await opened()
    stream = Stream(sender, 0.1)

    def later() -> Iterator[Sent]:
        yield publication("a")
        stream._timeout = 0.3
        yield publication("b")

    loop = asyncio.get_running_loop()
    began = loop.time()
    assert fates(await stream.send(later())) == ["PublishUnknown"] * 2
    assert loop.time() - began >= 0.3
    await sender.close()
