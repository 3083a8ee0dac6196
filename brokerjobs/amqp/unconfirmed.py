"""What was published on one confirm channel, until RabbitMQ's verdict on it.

RabbitMQ numbers what it gets on a channel from 1, and confirms by these numbers, one or all up to one. What it cannot
route it returns before it confirms it; a returned message carries no number, only its own id.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Generic, TypeVar

from brokerjobs.amqp.frames import ACK, METHOD, NACK, RETURN, BrokenStream, Content
from brokerjobs.amqp.properties import read_content_header

T = TypeVar("T")

_VERDICT = Struct(">QB")
_REPLY = Struct(">HB")


class Returned(Exception):
    """No queue is bound for it; says what RabbitMQ says."""


class Refused(Exception):
    """RabbitMQ could not keep it (nack)."""


class Unconfirmed(Generic[T]):
    """In the order in which they were sent.

    Args:
        tell: told once of each its verdict: None, Returned or Refused.
    """

    def __init__(self, tell: Callable[[T, Exception | None], None]) -> None:
        self._tell = tell
        self._published = 0
        self._judged_to = 0  # all up to this number
        self._waiting: dict[int, tuple[T, str]] = {}
        self._by_id: dict[str, int] = {}
        self._returns = Content(RETURN, self._read_return)

    def __len__(self) -> int:
        return len(self._waiting)

    def holds(self, id: str) -> bool:
        """Whether a message of this id waits for its verdict."""
        return id in self._by_id

    def add(self, item: T, id: str) -> None:
        """It is the next that is published; no other of its id may wait here."""
        self._published += 1
        self._waiting[self._published] = item, id
        self._by_id[id] = self._published

    def tap(self, kind: int, data: bytes, at: int, end: int) -> int:
        """Take the frames that hold verdicts and returned messages.

        Raises:
            BrokenStream: they are of what was not sent, or cut off.
        """
        if kind == METHOD:
            method = data[at : at + 4]
            if method in (ACK, NACK):
                if end - at != 4 + _VERDICT.size:
                    raise BrokenStream("RabbitMQ sent a confirm that is cut off")
                number, bits = _VERDICT.unpack_from(data, at + 4)
                self.judge(number, multiple=bits & 1 == 1, error=None if method == ACK else Refused())
                return end + 1
        return self._returns.take(kind, data, at, end)

    def judge(self, number: int, *, multiple: bool, error: Exception | None) -> None:
        """RabbitMQ's verdict on one, or on all up to it.

        Raises:
            BrokenStream: it was not sent.
        """
        if not 0 < number <= self._published:
            raise BrokenStream(f"RabbitMQ confirmed message {number} of {self._published}")
        if not multiple:
            self._settle(number, error)
            return
        for each in range(self._judged_to + 1, number + 1):
            self._settle(each, error)
        self._judged_to = max(self._judged_to, number)

    def give_back(self, id: str, said: str) -> None:
        """RabbitMQ has returned a message.

        Raises:
            BrokenStream: it was not sent.
        """
        number = self._by_id.get(id)
        if number is None:
            raise BrokenStream("RabbitMQ returned a message that was not sent")
        self._settle(number, Returned(said))

    def clear(self) -> list[T]:
        """All that have no verdict, which none will have any more."""
        cleared = self.all()
        self._waiting.clear()
        self._by_id.clear()
        return cleared

    def all(self) -> list[T]:
        """All that wait."""
        return [item for item, _ in self._waiting.values()]

    def _settle(self, number: int, error: Exception | None) -> None:
        found = self._waiting.pop(number, None)
        if found is None:  # it came back, and was told so
            return
        item, id = found
        if self._by_id.get(id) == number:
            del self._by_id[id]
        self._tell(item, error)

    def _read_return(self, method: bytes, head: bytes, _: bytes) -> None:
        code, length = _REPLY.unpack_from(method, 4) if len(method) >= 4 + _REPLY.size else (0, 0)
        text = method[4 + _REPLY.size : 4 + _REPLY.size + length].decode(errors="replace")
        self.give_back(read_content_header(head).properties.get("message_id", ""), f"{code} {text}")
