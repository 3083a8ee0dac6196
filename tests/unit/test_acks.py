"""Answers given together never answer for a delivery that was not settled."""

from __future__ import annotations

import asyncio
from typing import Any

import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands

from brokerjobs.amqp.acks import Acks


class Broker:
    """Holds deliveries, and answers for what a channel writes as RabbitMQ would."""

    def __init__(self, count: int) -> None:
        self.held = set(range(1, count + 1))
        self.writes = 0
        self.frames: list[commands.Basic.Ack | commands.Basic.Nack] = []

    def write(self, data: bytes) -> None:
        self.writes += 1
        while data:
            length, channel, frame = pamqp.frame.unmarshal(data)
            data = data[length:]
            assert channel == 3
            assert isinstance(frame, commands.Basic.Ack | commands.Basic.Nack)
            self.frames.append(frame)
            tag = frame.delivery_tag
            assert tag in self.held, f"406 unknown delivery tag {tag}"
            self.held -= {held for held in self.held if held <= tag} if frame.multiple else {tag}


async def turn() -> None:
    """Let the event loop do what was due."""
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(done.set_result, None)
    await done


@given(
    count=st.integers(1, 40),
    order=st.randoms(use_true_random=False),
    together=st.booleans(),
)
def test_what_was_settled_is_answered_once_and_nothing_else_ever(
    count: int, order: Any, together: bool
) -> None:
    async def scenario() -> None:
        broker = Broker(count)
        acks = Acks(3, broker.write, together=together)
        tags = list(range(1, count + 1))
        order.shuffle(tags)
        unsettled = set(tags)
        while tags:
            for _ in range(min(len(tags), order.randint(1, 8))):
                tag = tags.pop()
                unsettled.discard(tag)
                if order.random() < 0.2:
                    acks.requeue(tag)
                else:
                    acks.ack(tag)
                assert unsettled <= broker.held
            await turn()
            assert broker.held == unsettled

    asyncio.run(scenario())


async def _settled(*tags: int, together: bool = True, count: int = 9) -> Broker:
    broker = Broker(count)
    acks = Acks(3, broker.write, together=together)
    for tag in tags:
        acks.ack(tag)
    assert not broker.frames
    await turn()
    return broker


@pytest.mark.parametrize(
    ("tags", "frames"),
    [
        ((1,), [(1, False)]),
        ((1, 2, 3), [(3, True)]),
        ((3, 1, 2), [(3, True)]),
        ((1, 2, 5, 7), [(2, True), (5, False), (7, False)]),
        ((2, 3), [(2, False), (3, False)]),
    ],
)
def test_unbroken_row_takes_one_frame(tags: tuple[int, ...], frames: list[tuple[int, bool]]) -> None:
    broker = asyncio.run(_settled(*tags))
    assert [(frame.delivery_tag, frame.multiple) for frame in broker.frames] == frames
    assert broker.writes == 1


def test_gap_that_closes_makes_the_row_whole() -> None:
    async def scenario() -> None:
        broker = Broker(9)
        acks = Acks(3, broker.write)
        for tags in (3, 4), (1,), (2,), (5, 6):
            for tag in tags:
                acks.ack(tag)
            await turn()
        assert [(frame.delivery_tag, frame.multiple) for frame in broker.frames] == [
            (3, False), (4, False), (1, False), (2, False), (6, True),
        ]  # fmt: skip

    asyncio.run(scenario())


def test_one_frame_each_where_that_is_wanted() -> None:
    broker = asyncio.run(_settled(1, 2, 3, together=False))
    assert [(frame.delivery_tag, frame.multiple) for frame in broker.frames] == [
        (1, False),
        (2, False),
        (3, False),
    ]


def test_closed_channel_gets_nothing() -> None:
    async def scenario() -> None:
        broker = Broker(3)
        acks = Acks(3, broker.write)
        acks.ack(1)
        acks.close()
        acks.requeue(2)
        await turn()
        assert broker.writes == 0

    asyncio.run(scenario())


def test_flush_sends_what_is_pending_at_once_and_not_again() -> None:
    async def scenario() -> None:
        broker = Broker(3)
        acks = Acks(3, broker.write)
        acks.ack(1)
        acks.flush()
        assert broker.held == {2, 3}
        await turn()
        assert broker.writes == 1

    asyncio.run(scenario())
