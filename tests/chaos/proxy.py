"""TCP proxies between the processes and the broker, which can do what networks do. Needs no root.

pass        what arrives goes on
latency     200 ms later
hole-in     nothing reaches the client; what the broker sends piles up, and arrives when that is over
hole-out    nothing reaches the broker
half-open   connections are reset; new ones are accepted, and nobody ever answers
cut         a frame ends in the middle, and with it the connection
flip        a bit of a frame's size is turned over
trickle     one byte a second
reset       all connections are reset, once
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from brokerjobs.node.ports import reserve
from tests.chaos.frames import GREETING, HEADER, Frames, flipped

T = TypeVar("T")

Mode = Literal["pass", "latency", "hole-in", "hole-out", "half-open", "cut", "flip", "trickle", "reset"]

CHUNK = 64 * 1024
LATENCY = 0.2
TRICKLE = 1.0
DEADLINE = 10.0  # seconds for the thread to do what it is told


@dataclass(slots=True)
class _Link:
    """One connection; a byte of it is turned over once."""

    is_spoilt: bool = False


class Proxy:
    """One listener in front of one port, or several of a cluster; runs in a thread of its own.

    Args:
        targets: each connection goes to one that answers, in turn.
    """

    def __init__(self, *targets: int) -> None:
        self._targets = deque(targets)
        self._reserved = reserve()
        self.port = self._reserved.number
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{self.port}", daemon=True)
        self._links: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._mode: Mode = "pass"
        self._changed = asyncio.Event()
        self.hits = 0
        """How many connections a mode has changed or ended so far."""

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._run(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._reserved.close()

    def set(self, mode: Mode) -> None:
        """Change what happens to all connections, from now on."""
        self._run(self._set(mode))

    def _run(self, step: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(step, self._loop).result(DEADLINE)

    # -- in the thread

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def _close(self) -> None:
        self._server.close()
        await self._end_all()

    async def _set(self, mode: Mode) -> None:
        was, self._mode = self._mode, "pass" if mode == "reset" else mode
        self._changed.set()
        self._changed = asyncio.Event()
        if mode in ("reset", "half-open") or was == "half-open":
            await self._end_all()
        elif mode in ("hole-in", "hole-out", "latency", "trickle"):
            self.hits += len(self._links)

    async def _end_all(self) -> None:
        links, self._links = dict(self._links), {}
        self.hits += len(links)
        for task, client in links.items():
            _reset(client)
            task.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links[task] = writer
        upstream: asyncio.StreamWriter | None = None
        try:
            if self._mode == "half-open":
                await asyncio.Event().wait()  # until that is over, and the connection with it
            answers, upstream = await self._dial()
            link = _Link()
            pumps = [
                asyncio.ensure_future(self._pump(link, reader, upstream, "hole-out", Frames(GREETING))),
                asyncio.ensure_future(self._pump(link, answers, writer, "hole-in", Frames())),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._links.pop(task, None)
            _reset(writer)
            if upstream is not None:
                _reset(upstream)

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for _ in range(len(self._targets) - 1):
            self._targets.rotate()
            with suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", self._targets[0])
        self._targets.rotate()
        return await asyncio.open_connection("127.0.0.1", self._targets[0])

    async def _pump(
        self,
        link: _Link,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        hole: Mode,
        frames: Frames,
    ) -> None:
        while True:
            while self._mode == hole:
                await self._changed.wait()
            chunk = await source.read(CHUNK)
            if not chunk:
                return
            starts = frames.starts(chunk)
            while self._mode == hole:
                await self._changed.wait()
            if not await self._pass_on(link, chunk, starts, sink):
                return

    async def _pass_on(
        self, link: _Link, chunk: bytes, starts: list[int], sink: asyncio.StreamWriter
    ) -> bool:
        """Send what arrived onward as the mode wants it; False ends the connection."""
        if self._mode == "latency":
            await self._unless_changed(LATENCY)
        elif self._mode == "flip" and not link.is_spoilt and (spoilt := flipped(chunk, starts)) is not None:
            self.hits += 1
            link.is_spoilt = True
            chunk = spoilt
        elif self._mode == "cut" and starts:
            self.hits += 1
            sink.write(chunk[: starts[-1] + HEADER // 2])
            await sink.drain()
            return False
        while self._mode == "trickle" and chunk:
            sink.write(chunk[:1])
            chunk = chunk[1:]
            await self._unless_changed(TRICKLE)
        sink.write(chunk)
        await sink.drain()
        return True

    async def _unless_changed(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection as a crash does: with a reset, and without what is still to be sent."""
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
