"""Each message gets the verdict that the broker gave on it, and none is left waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, header

from brokerjobs import Message
from brokerjobs.amqp.encode import Unwritable
from brokerjobs.amqp.frames import BrokenStream, Splitter
from brokerjobs.amqp.outlet import Outlet, Verdict, agrees_with_client
from brokerjobs.amqp.unconfirmed import Returned

CHANNEL = 5


class Writer:
    """Takes what is written."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.held = 0
        self.is_lost = False

    @property
    def transport(self) -> Writer:
        return self

    def get_write_buffer_size(self) -> int:
        return self.held

    def is_closing(self) -> bool:
        return self.is_lost

    def write(self, data: bytes) -> None:
        self.writes.append(data)


class Broker:
    """Answers an outlet as RabbitMQ does."""

    def __init__(self) -> None:
        self.writer = Writer()
        self.outlet = Outlet(CHANNEL, self.writer, 4096)  # type: ignore[arg-type]
        self.splitter = Splitter()
        self.splitter.taps[CHANNEL] = self.outlet.tap

    def publish(self, id: str = "a", **more: Any) -> Verdict:
        message = Message(job="a.b", routing_key="a.b", id=id, body=b"{}", **more)
        return self.outlet.publish("jobs", "a.b", message)

    def say(self, frame: Any) -> bytes:
        return self.splitter.feed(pamqp.frame.marshal(frame, CHANNEL))

    def ack(self, number: int, *, multiple: bool = False) -> None:
        assert self.say(commands.Basic.Ack(number, multiple)) == b""

    def nack(self, number: int, *, multiple: bool = False) -> None:
        assert self.say(commands.Basic.Nack(number, multiple)) == b""

    def give_back(self, id: str) -> None:
        self.say(commands.Basic.Return(312, "NO_ROUTE", "jobs", "a.b"))
        self.say(header.ContentHeader(body_size=0, properties=commands.Basic.Properties(message_id=id)))


def on_loop(scenario: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def test() -> None:
        asyncio.run(scenario())  # type: ignore[arg-type]

    test.__name__ = scenario.__name__
    return test


def fate(verdict: Verdict) -> str:
    if not verdict.done():
        return "waits"
    return type(verdict.exception()).__name__ if verdict.exception() else "confirmed"


@given(
    count=st.integers(1, 30),
    answers=st.lists(st.tuples(st.integers(1, 30), st.booleans(), st.booleans()), max_size=20),
    returned=st.sets(st.integers(1, 30), max_size=5),
)
def test_verdicts_are_those_of_the_broker(
    count: int, answers: list[tuple[int, bool, bool]], returned: set[int]
) -> None:
    async def scenario() -> None:
        broker = Broker()
        verdicts = {number: broker.publish(str(number)) for number in range(1, count + 1)}
        wanted = dict.fromkeys(verdicts, "waits")
        for number in sorted(returned & verdicts.keys()):
            broker.give_back(str(number))
            wanted[number] = "Returned"
        for number, multiple, is_ack in answers:
            if number > count:
                continue
            (broker.ack if is_ack else broker.nack)(number, multiple=multiple)
            for each in range(1 if multiple else number, number + 1):
                if wanted[each] == "waits":
                    wanted[each] = "confirmed" if is_ack else "Refused"
        assert {number: fate(verdict) for number, verdict in verdicts.items()} == wanted
        broker.outlet.end(ConnectionResetError("gone"))
        assert "waits" not in {fate(verdict) for verdict in verdicts.values()}

    asyncio.run(scenario())


@on_loop
async def test_messages_of_one_turn_leave_in_one_write() -> None:
    broker = Broker()
    for number in range(3):
        broker.publish(str(number))
    assert broker.writer.writes == []
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(done.set_result, None)
    await done
    [data] = broker.writer.writes
    names = []
    while data:
        length, channel, frame = pamqp.frame.unmarshal(data)
        assert channel == CHANNEL
        names.append(frame.name)
        data = data[length:]
    assert names == ["Basic.Publish", "ContentHeader", "ContentBody"] * 3


@on_loop
async def test_returned_message_says_why_and_its_confirm_is_no_surprise() -> None:
    broker = Broker()
    lost, kept = broker.publish("lost"), broker.publish("kept")
    broker.give_back("lost")
    broker.ack(1)
    broker.ack(2)
    with pytest.raises(Returned, match="312 NO_ROUTE"):
        await lost
    await kept


@on_loop
async def test_id_may_be_sent_again_after_its_verdict() -> None:
    broker = Broker()
    first = broker.publish("a")
    broker.nack(1)
    second = broker.publish("a")
    broker.give_back("a")
    assert (fate(first), fate(second)) == ("Refused", "Returned")


@on_loop
async def test_nobody_need_wait_for_a_verdict() -> None:
    broker = Broker()
    left, next_one = broker.publish("left"), broker.publish("next")
    left.cancel()
    broker.ack(2, multiple=True)
    await next_one


@on_loop
async def test_closing_channel_is_left_to_the_library_and_sends_nothing_more() -> None:
    broker = Broker()
    waits = broker.publish("a")
    close = commands.Channel.Close(404, "NOT_FOUND", 60, 40)
    assert broker.say(close) == pamqp.frame.marshal(close, CHANNEL)
    late = broker.publish("b")
    why = ConnectionAbortedError("404 NOT_FOUND")
    broker.outlet.end(why)
    assert (fate(waits), fate(late)) == ("ConnectionAbortedError", "ConnectionError")
    assert fate(broker.publish("c")) == "ConnectionAbortedError"
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(done.set_result, None)
    await done
    assert broker.writer.writes == []


@on_loop
async def test_what_cannot_be_written_is_not_sent_and_counts_for_nothing() -> None:
    broker = Broker()
    with pytest.raises(Unwritable):
        broker.publish("a", priority=256)
    kept = broker.publish("a")
    broker.ack(1)
    await kept


@on_loop
async def test_verdict_on_what_was_not_sent_breaks_the_stream() -> None:
    broker = Broker()
    broker.publish("a")
    for number in (0, 2):
        with pytest.raises(BrokenStream, match="confirmed message"):
            broker.ack(number)
    with pytest.raises(BrokenStream, match="was not sent"):
        broker.give_back("b")


@on_loop
async def test_it_is_crowded_while_much_waits_to_be_sent() -> None:
    broker = Broker()
    before = broker.outlet.is_crowded
    broker.writer.held = 300_000
    assert (before, broker.outlet.is_crowded) == (False, True)


def test_a_message_is_to_the_installed_library_what_it_is_here() -> None:
    assert agrees_with_client()


def test_a_library_that_disagrees_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brokerjobs.amqp.encode.header", lambda *_: b"\x00\x3c" + b"\x00" * 12)
    agrees_with_client.cache_clear()
    assert not agrees_with_client()
    agrees_with_client.cache_clear()
