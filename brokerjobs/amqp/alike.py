"""Read a message like an earlier one of its route, from which it differs only in its id, its time and its body.

Most messages of a queue are like that: a publisher sends the same properties in the same places. To compare those bytes
costs a fraction of reading them.
"""

from __future__ import annotations

from struct import Struct, error
from typing import Any, Final

from brokerjobs.amqp.properties import PROPERTIES_AT, TEXT, bits_of, present
from brokerjobs.message import Message

MOST_ROUTES = 256  # then all are learned anew
LONGEST_ID = 63  # bytes; `message.py` looks twice at longer ones

_ID, _TIMESTAMP = "message_id", "timestamp"
_NEEDED = bits_of(_ID, _TIMESTAMP)
# What may be there besides; others differ from message to message, so that learning them would be in vain.
_SHARED = bits_of(
    "content_type", "content_encoding", "delivery_mode", "priority", "message_type", "user_id", "app_id"
)
_TIME: Final = Struct(">Q")
_FLAGS: Final = Struct(">H")


class Pattern:
    """What messages of one route have in common.

    Args:
        head: the content header of one of them.
        begin, end: where its id stands; the time stands behind.
        message: as it was read.
    """

    __slots__ = ("_before", "_begin", "_behind", "_end", "_fields", "_rest")

    def __init__(self, head: bytes, begin: int, end: int, message: Message) -> None:
        self._begin, self._end, self._rest = begin, end, end + _TIME.size
        self._before, self._behind = head[PROPERTIES_AT:begin], head[self._rest :]
        self._fields: dict[str, Any] = {
            "job": message.job,
            "routing_key": message.routing_key,
            "priority": message.priority,
            "content_type": message.content_type,
            "content_encoding": message.content_encoding,
            "app_id": message.app_id,
            "user_id": message.user_id,
        }

    def read(self, head: bytes, body: bytes) -> Message | None:
        """The message; None where it is not like the others."""
        begin, end, rest = self._begin, self._end, self._rest
        if head[PROPERTIES_AT:begin] != self._before or head[rest:] != self._behind:
            return None
        try:
            id, (timestamp,) = head[begin:end], _TIME.unpack_from(head, end)
        except error:  # it is cut off
            return None
        if not id.isascii() or not 0 < timestamp < 2**32:
            return None
        return Message(id=id.decode(), timestamp=timestamp, body=body, **self._fields)


class Alike:
    """The patterns of one queue, by route."""

    def __init__(self) -> None:
        self._patterns: dict[bytes, Pattern] = {}

    def read(self, route: bytes, head: bytes, body: bytes) -> Message | None:
        """The message, if it is like the one of this route that was learned last."""
        pattern = self._patterns.get(route)
        return None if pattern is None else pattern.read(head, body)

    def learn(self, route: bytes, head: bytes, message: Message) -> None:
        """Know messages like this one, of whose properties nothing was odd."""
        (flags,) = _FLAGS.unpack_from(head, PROPERTIES_AT)
        if flags & _NEEDED != _NEEDED or flags & ~(_NEEDED | _SHARED):
            return
        begin, end = _place_of_id(head, flags)
        if 0 < end - begin <= LONGEST_ID:
            if len(self._patterns) >= MOST_ROUTES:
                self._patterns.clear()
            self._patterns[route] = Pattern(head, begin, end, message)


def _place_of_id(head: bytes, flags: int) -> tuple[int, int]:
    at = PROPERTIES_AT + _FLAGS.size
    for name, form in present(flags):
        if name == _ID:
            break
        at += 1 + head[at] if form is TEXT else 1  # before an id these are texts and octets
    return at + 1, at + 1 + head[at]
