"""Small stand-ins for what a unit test does without: they write down what happens to them, in order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brokerjobs.amqp.connection import ConnectionLost
from brokerjobs.amqp.delivery import Delivery, read_whole
from brokerjobs.message import Message
from brokerjobs.transport import Publication


class FakePublisher:
    """Confirms what it is given; or raises, in their order, the errors it was told to."""

    def __init__(self, journal: list[str], *errors: Exception) -> None:
        self.published: list[Publication] = []
        self.timeouts: list[float] = []
        self._journal = journal
        self.errors = list(errors)

    async def publish(self, publication: Publication, *, timeout: float) -> None:
        self.timeouts.append(timeout)
        if self.errors:
            self._journal.append("not confirmed")
            raise self.errors.pop(0)
        self.published.append(publication)
        self._journal.append("confirmed")


class FakeDelivery(Delivery):
    """A delivery without a broker; `end_session` makes it one that can no longer be settled."""

    def __init__(
        self,
        queue: str,
        journal: list[str] | None = None,
        *,
        body: bytes = b"",
        routing_key: str = "",
        properties: Mapping[str, Any] | None = None,
        redelivered: bool = False,
        counted: bool = False,
    ) -> None:
        self.queue = queue
        self.is_settled = False
        self.is_counted = counted
        self.journal: list[str] = [] if journal is None else journal
        self._has_ended = False
        self._fake = (body, routing_key, properties or {}, redelivered)

    @property
    def body(self) -> bytes:
        return self._fake[0]

    @property
    def routing_key(self) -> str:
        return self._fake[1]

    @property
    def properties(self) -> Mapping[str, Any]:
        return self._fake[2]

    @property
    def redelivered(self) -> bool:
        return self._fake[3]

    def read(self) -> tuple[Message, object]:
        return read_whole(self)

    @property
    def is_live(self) -> bool:
        return not self.is_settled and not self._has_ended

    def end_session(self) -> None:
        self._has_ended = True

    async def ack(self) -> None:
        self._settle_as("ack")

    async def requeue(self) -> None:
        self._settle_as("requeue")

    def _settle_as(self, frame: str) -> None:
        if self._has_ended:
            raise ConnectionLost("the session of this delivery has ended")
        assert not self.is_settled, "settled twice"
        self.is_settled = True
        self.journal.append(frame)
