"""The proxy does to connections what it says, so that a fault that hit nothing cannot pass for one that did."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.chaos.proxy import LATENCY, Proxy

FRAME = b"\x01\x00\x01" + (5).to_bytes(4) + b"hello" + b"\xce"
GREETING = b"AMQP\0\0\x09\x01"
Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_dialled: list[asyncio.StreamWriter] = []


@asynccontextmanager
async def echo() -> AsyncIterator[Proxy]:
    """A proxy in front of a server that sends frames back."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readexactly(len(GREETING))
            while data := await reader.read(1000):
                writer.write(data)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    proxy = await asyncio.to_thread(Proxy(server.sockets[0].getsockname()[1]).__enter__)
    try:
        yield proxy
    finally:
        for writer in _dialled:
            writer.transport.abort()
        _dialled.clear()
        await asyncio.to_thread(proxy.__exit__, None, None, None)
        server.close()


async def dial(proxy: Proxy) -> Wire:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    _dialled.append(writer)
    writer.write(GREETING)
    return reader, writer


async def asked(wire: Wire) -> bytes:
    reader, writer = wire
    writer.write(FRAME)
    return await reader.readexactly(len(FRAME))


async def says_nothing(wire: Wire) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await asked(wire)


async def is_reset(wire: Wire) -> None:
    async def until_it_ends() -> None:
        while True:
            await asked(wire)

    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(until_it_ends(), 5)


@pytest.mark.parametrize("mode", ["hole-in", "hole-out"])
async def test_a_black_hole_holds_what_is_sent_until_it_is_over(mode: Any) -> None:
    async with echo() as proxy:
        wire = await dial(proxy)
        assert await asked(wire) == FRAME
        await asyncio.to_thread(proxy.set, mode)
        await says_nothing(wire)
        await asyncio.to_thread(proxy.set, "pass")
        async with asyncio.timeout(5):
            assert await wire[0].readexactly(len(FRAME)) == FRAME
        assert proxy.hits == 1


@pytest.mark.parametrize("mode", ["reset", "cut"])
async def test_a_connection_ends(mode: Any) -> None:
    async with echo() as proxy:
        wire = await dial(proxy)
        assert await asked(wire) == FRAME
        await asyncio.to_thread(proxy.set, mode)
        await is_reset(wire)
        assert proxy.hits == 1


async def test_half_open_accepts_and_never_answers() -> None:
    async with echo() as proxy:
        before = await dial(proxy)
        assert await asked(before) == FRAME
        await asyncio.to_thread(proxy.set, "half-open")
        await is_reset(before)
        during = await dial(proxy)
        await says_nothing(during)
        await asyncio.to_thread(proxy.set, "pass")
        await is_reset(during)
        assert await asked(await dial(proxy)) == FRAME


async def test_a_flip_changes_one_byte() -> None:
    async with echo() as proxy:
        wire = await dial(proxy)
        assert await asked(wire) == FRAME
        await asyncio.to_thread(proxy.set, "flip")
        spoilt = await asked(wire)
        assert sum(was != now for was, now in zip(FRAME, spoilt, strict=True)) == 1
        assert proxy.hits == 1


async def test_latency_goes_both_ways() -> None:
    async with echo() as proxy:
        wire = await dial(proxy)
        await asyncio.to_thread(proxy.set, "latency")
        began = asyncio.get_running_loop().time()
        assert await asked(wire) == FRAME
        assert asyncio.get_running_loop().time() - began >= 2 * LATENCY


async def test_a_trickle_is_a_byte_at_a_time_until_it_is_over() -> None:
    async with echo() as proxy:
        wire = await dial(proxy)
        assert await asked(wire) == FRAME
        await asyncio.to_thread(proxy.set, "trickle")
        await says_nothing(wire)
        await asyncio.to_thread(proxy.set, "pass")
        async with asyncio.timeout(5):
            assert await wire[0].readexactly(len(FRAME)) == FRAME
