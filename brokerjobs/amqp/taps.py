"""Take the frames that pass by the thousand off the client library's hands, before it sees them.

The library connects, shakes hands, encrypts, keeps heartbeats and asks its questions, over a stream of ours. From the
channels that are tapped, deliveries and confirms go straight to whoever waits for them; all else reaches the library.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiormq.connection
import aiormq.exceptions

from brokerjobs.amqp.frames import IDLE, OVERHEAD, BrokenStream, Splitter, Tap
from brokerjobs.logs import log

SIGN_OF_LIFE = 1.0  # seconds: the library takes a connection for dead on which it sees nothing


class TappedReader(asyncio.StreamReader):
    """Passes on to the library what no tap takes."""

    def __init__(self) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self._clock = asyncio.get_running_loop().time
        self._splitter = Splitter()
        self._told_at = 0.0

    @property
    def taps(self) -> dict[int, Tap]:
        """By the numbers of their channels."""
        return self._splitter.taps

    def limit(self, largest: int) -> None:
        """From now on no frame is larger than was agreed on; 0 is no limit."""
        self._splitter.largest = largest - OVERHEAD if largest else 2**32

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]
        if self.exception() is not None:
            return
        try:
            passed = self._splitter.feed(data)
        except Exception as error:  # of a tap too: who cannot take its frames would wait for ever
            log.error(
                "stream broken", error=str(error), exc_info=None if isinstance(error, BrokenStream) else error
            )
            self.set_exception(error if isinstance(error, ConnectionError) else ConnectionError(repr(error)))
            return
        if self._splitter.taken and self._clock() - self._told_at > SIGN_OF_LIFE:
            self._splitter.taken, self._told_at = 0, self._clock()
            passed += IDLE
        if passed:
            super().feed_data(passed)


class TappedStreams(aiormq.connection.TransportFactory):
    """Makes the library's streams; afterwards they are here, unless the library did not ask for them."""

    reader: TappedReader
    writer: asyncio.StreamWriter

    @property
    def are_used(self) -> bool:
        return hasattr(self, "writer")

    def send(self, data: bytes) -> None:
        """Send these bytes, unless the connection is closing: then they would reach nobody."""
        if not self.writer.is_closing():
            self.writer.write(data)

    async def create(self, url: Any, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        provider = kwargs.pop("ssl_context_provider", None)
        secured = await provider.get_context() if url.scheme == "amqps" else None
        loop = asyncio.get_running_loop()
        reader = TappedReader()
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        try:
            transport, _ = await loop.create_connection(
                lambda: protocol, host=url.host, port=url.port, ssl=secured, **kwargs
            )
        except OSError as error:
            raise aiormq.exceptions.AMQPConnectionError(*error.args) from error
        self.reader, self.writer = reader, asyncio.StreamWriter(transport, protocol, reader, loop)
        return self.reader, self.writer
