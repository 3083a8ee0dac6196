"""Keep what the client library cannot read from ending the connection, each time it is delivered.

The library gives a connection up at the first frame that it cannot decode, before anybody has seen the message: it
goes back to its queue, and does it again to the next session, and to all other workers. So it is given decoders that
do not fail: the message arrives with what could be read and with what could not, in words, and its body whole.
Installed before the first delivery, once per process; proved each time on a frame of that kind.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from struct import pack
from typing import Any

import aiormq.exceptions
import pamqp.frame
from pamqp import commands, decode, header

from brokerjobs.amqp.connection import LOST
from brokerjobs.amqp.properties import date_of, read_content_header
from brokerjobs.errors import ConfigurationError
from brokerjobs.logs import log

TESTED = "4.0.1"  # release of pamqp
SUSPICIOUS = 3  # sessions in a row


class Garbled(str):
    r"""A name that was not UTF-8; its odd bytes are spelled as in Python, `\xff`."""

    __slots__ = ()


class UnreadableProperties(commands.Basic.Properties):
    """What could be read of a message's properties; `problems` tells what could not."""

    problems: str


def problems_of(delivery: Any, properties: Any) -> str:
    """What could not be read of a delivery, in words; empty when all could."""
    names = ("routing key", delivery.routing_key), ("exchange", delivery.exchange)
    garbled = [(what, str(name)) for what, name in names if isinstance(name, Garbled)]
    return told(garbled, properties.problems if isinstance(properties, UnreadableProperties) else "")


def told(garbled: Iterable[tuple[str, str]], problems: str) -> str:
    """All of it in words: what names are not UTF-8, and the problems of the properties."""
    words = [f"the {what} is not UTF-8: {name}" for what, name in garbled]
    return "; ".join([*words, problems] if problems else words)


@cache
def install() -> None:
    """Give the client library decoders that do not fail.

    Raises:
        ConfigurationError: this release of the library has no place for them.
    """
    header.ContentHeader.unmarshal = _read_content_header  # type: ignore[method-assign]
    decode.METHODS["shortstr"] = _short_string
    try:
        is_kept = _self_test()
    except Exception:
        is_kept = False
    if not is_kept:
        raise ConfigurationError(
            f"pamqp {version('pamqp')} gives up a connection at a message that it cannot read, and brokerjobs does not "
            "know how to prevent that: one such message would stop its queue for good. Install the one that works: "
            f"pip install pamqp=={TESTED}"
        )


def _read_content_header(self: header.ContentHeader, data: bytes) -> None:
    read = read_content_header(data)
    self.class_id, self.weight, self.body_size = read.class_id, read.weight, read.body_size  # type: ignore[assignment]
    properties = self.properties
    if read.problems:
        self.properties = properties = UnreadableProperties()
        properties.problems = read.problems
    for name, value in read.properties.items():
        setattr(properties, name, date_of(value) if name == "timestamp" else value)


_plain_short_string = decode.short_str


def _short_string(value: bytes) -> tuple[int, str]:
    try:
        return _plain_short_string(value)
    except UnicodeDecodeError:
        length = value[0]
        return length + 1, Garbled(value[1 : length + 1].decode(errors="backslashreplace"))


def _self_test() -> bool:
    """Whether a bad header, and a bad routing key, pass through the library as they shall."""
    bad_time = pack(">HHQHQ", commands.Basic.frame_id, 0, 7, 1 << 6, 2**64 - 1)
    _, _, content = pamqp.frame.unmarshal(_frame(2, bad_time))
    bad_key = pack(">I", commands.Basic.Deliver.index) + b"\x01c" + pack(">QB", 5, 1) + b"\x00" + b"\x02k\xff"
    _, _, deliver = pamqp.frame.unmarshal(_frame(1, bad_key))
    return (
        isinstance(content, header.ContentHeader)
        and content.body_size == 7
        and isinstance(content.properties, UnreadableProperties)
        and isinstance(deliver, commands.Basic.Deliver)
        and deliver.delivery_tag == 5
        and "routing key" in problems_of(deliver, content.properties)
    )


def _frame(kind: int, payload: bytes) -> bytes:
    return pack(">BHI", kind, 1, len(payload)) + payload + b"\xce"


class Streak:
    """Counts sessions in a row that ended because the client library could not read what RabbitMQ sent.

    The second net, under the decoders: whatever gets past them shall be seen.
    """

    def __init__(self) -> None:
        self._sessions = 0

    def count(self, ended_by: BaseException | None, queues: str) -> None:
        """Say so when there were several."""
        if not is_unreadable(ended_by):
            self._sessions = 0
            return
        self._sessions += 1
        if self._sessions >= SUSPICIOUS:
            log.error(
                "queue held up", queues=queues, sessions=self._sessions, error=f"{type(ended_by).__name__}: {ended_by}",
                hint="RabbitMQ sends something that the client library cannot read, each time anew: look for it at "
                "the front of the queue in the management page, and report it",
            )  # fmt: skip


def is_unreadable(error: BaseException | None) -> bool:
    """Whether a connection ended with this because of what was read from it, and not because it was lost."""
    return isinstance(error, aiormq.exceptions.InvalidFrameError) or (
        isinstance(error, Exception) and not isinstance(error, LOST)
    )
