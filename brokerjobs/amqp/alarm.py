"""See that RabbitMQ blocks a connection: memory or disk run low, and it reads nothing more of what is published."""

from __future__ import annotations

from collections.abc import Callable

from brokerjobs.amqp.frames import METHOD

BLOCKED, UNBLOCKED = b"\x00\x0a\x00\x3c", b"\x00\x0a\x00\x3d"  # of the class connection
OnAlarm = Callable[[bool], None]


class Alarm:
    """Of one connection. RabbitMQ tells those that have published, at their first message during an alarm."""

    def __init__(self) -> None:
        self.is_on = False
        self._told: OnAlarm = lambda is_on: None

    def follow(self, told: OnAlarm) -> None:
        """Tell each change from now on; that it is on already as well."""
        self._told = told
        if self.is_on:
            told(True)

    def tap(self, kind: int, data: bytes, at: int, end: int) -> int:
        """See, and leave to the client library, what is said of the connection as a whole."""
        if kind == METHOD:
            method = data[at : at + 4]
            if method in (BLOCKED, UNBLOCKED):
                self._change(method == BLOCKED)
        return 0

    def end(self) -> None:
        """The connection has ended, and its alarm for us with it."""
        self._change(False)

    def _change(self, is_on: bool) -> None:
        if is_on != self.is_on:
            self.is_on = is_on
            self._told(is_on)
