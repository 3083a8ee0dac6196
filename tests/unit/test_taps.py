"""What no tap takes reaches the client library; what breaks the stream ends the connection, and is told."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from brokerjobs.amqp.frames import IDLE, METHOD, BrokenStream, frame
from brokerjobs.amqp.taps import TappedReader

OTHER = frame(METHOD, 1, b"\x00\x0a\x00\x0b")


def test_frames_that_are_taken_are_a_sign_of_life_now_and_then() -> None:
    async def scenario() -> None:
        reader = TappedReader()
        reader.taps[7] = lambda kind, data, at, end: end + 1
        for _ in range(3):
            reader.feed_data(frame(METHOD, 7, b"taken") + OTHER)
        reader.feed_eof()
        assert await reader.read() == OTHER + IDLE + OTHER + OTHER

    asyncio.run(scenario())


def test_without_taps_all_passes_unchanged() -> None:
    async def scenario() -> None:
        reader = TappedReader()
        reader.feed_data(OTHER + IDLE + OTHER[:5])
        reader.feed_data(OTHER[5:])
        reader.feed_eof()
        assert await reader.read() == OTHER + IDLE + OTHER

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("error", "says"), [(BrokenStream("no frame"), "no frame"), (KeyError("a defect"), "a defect")]
)
def test_a_tap_that_cannot_take_its_frame_ends_the_connection(error: Exception, says: str) -> None:
    def tap(*_: object) -> int:
        raise error

    async def scenario() -> None:
        reader = TappedReader()
        reader.taps[7] = tap
        with capture_logs() as lines:
            reader.feed_data(frame(METHOD, 7, b"x"))
            reader.feed_data(OTHER)
        with pytest.raises(ConnectionError, match=says):
            await reader.readexactly(1)
        assert [line["event"] for line in lines] == ["stream broken"]

    asyncio.run(scenario())


def test_no_frame_is_larger_than_was_agreed_on() -> None:
    async def scenario() -> None:
        reader = TappedReader()
        reader.limit(100)
        reader.feed_data(frame(METHOD, 1, b"x" * 92))
        assert reader.exception() is None
        reader.feed_data(frame(METHOD, 1, b"x" * 93))
        assert isinstance(reader.exception(), BrokenStream)

        unlimited = TappedReader()
        unlimited.limit(0)
        unlimited.feed_data(frame(METHOD, 1, b"x" * 200_000))
        assert unlimited.exception() is None

    asyncio.run(scenario())
