"""Where AMQP frames begin in a stream of bytes: seven bytes of header (the last four its size), payload, one more."""

from __future__ import annotations

HEADER = 7
SIZE = slice(3, 7)
GREETING = 8  # bytes that a client sends before its first frame


class Frames:
    """Follows one direction of a connection.

    Args:
        skip: bytes before the first frame.
    """

    def __init__(self, skip: int = 0) -> None:
        self._left = skip
        self._header = bytearray()

    def starts(self, chunk: bytes) -> list[int]:
        """Take the next bytes in; gives the offsets in them at which frames begin."""
        found, at = [], 0
        while at < len(chunk):
            if self._left:
                taken = min(self._left, len(chunk) - at)
                self._left -= taken
            else:
                if not self._header:
                    found.append(at)
                taken = min(HEADER - len(self._header), len(chunk) - at)
                self._header += chunk[at : at + taken]
                if len(self._header) == HEADER:
                    self._left = int.from_bytes(self._header[SIZE]) + 1
                    self._header.clear()
            at += taken
        return found


def flipped(chunk: bytes, starts: list[int]) -> bytes | None:
    """The chunk with one bit of a frame's size turned over; None when it holds no whole header.

    Never a bit of a payload: AMQP has no checksums, so that would be another message, and nobody's fault.
    """
    for start in starts:
        size = start + HEADER - 1
        if size < len(chunk):
            return chunk[:size] + bytes([chunk[size] ^ 4]) + chunk[size + 1 :]
    return None
