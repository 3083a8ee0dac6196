"""The runs that this process knows, so that a message delivered again is recognised and not run again.

A redelivered message is the one that is running here (adopt: the run goes on, under the new delivery), or one whose
run has ended here (absorb: only what its outcome still owes is done). One that runs here and is held already is there
twice: the second waits for the end of the run. Anything else runs.
"""

from __future__ import annotations

import asyncio
import math
import time

from brokerjobs.amqp.delivery import Delivery
from brokerjobs.context import Cancellation
from brokerjobs.message import Message
from brokerjobs.outcome import Outcome, Succeeded

REMEMBERED = 20_000  # ended runs, after which those before them are forgotten
REMEMBERED_FOR = 1800.0  # seconds, likewise
# Nothing is owed any more but the acknowledgement.
FOLLOWED_UP = Succeeded()

Identity = int


def identity(message: Message, sent: object) -> Identity:
    """The same for a message delivered again; another for its next attempt, its replay, another body or time.

    It holds in this process only. Of 64 bits, two of all that are remembered are the same by chance less than once in
    10^14 times that a message comes again; no publisher can bring it about, since Python hashes text with a secret.

    Args:
        message: as it was delivered.
        sent: when, as AMQP's timestamp says: users may send an id of their own again on another day.
    """
    return hash((message.id, message.generation, message.hop, sent, message.body))


class Run:
    """One message being worked on.

    Args:
        delivery: how it can be settled; another one once it was adopted.
        message: what runs.
        identity: None for a message without an id of its own, which cannot be recognised.
    """

    __slots__ = (
        "began",
        "cancellation",
        "delivery",
        "has_ended",
        "identity",
        "message",
        "outcome",
        "settling",
        "task",
    )

    def __init__(self, delivery: Delivery, message: Message, identity: Identity | None = None) -> None:
        self.delivery = delivery
        self.message = message
        self.identity = identity
        self.outcome: Outcome | None = None  # by which it is settled
        self.task: asyncio.Task[None] | None = None  # that works on it
        self.settling: asyncio.Task[None] | None = None
        self.has_ended = False
        self.cancellation = Cancellation()
        self.began = time.time()

    @property
    def is_unsettled(self) -> bool:
        return not self.delivery.is_settled


class Runs:
    """Those of one queue: that go on, and for a while those that have ended."""

    def __init__(self) -> None:
        self._going_on: dict[Identity, Run] = {}
        self._ended: dict[Identity, Outcome] = {}
        self._ended_before: dict[Identity, Outcome] = {}
        self._turned_at = time.monotonic()
        self._given_back: dict[Identity, None] = {}

    def begin(self, run: Run) -> None:
        if run.identity is not None:
            known = self._going_on.get(run.identity)
            if known is None or known.delivery.is_settled:  # given back by hand, and going on all the same
                self._going_on[run.identity] = run

    def end(self, run: Run) -> None:
        if run.identity is not None and self._going_on.get(run.identity) is run:
            del self._going_on[run.identity]

    def owe(self, run: Run, outcome: Outcome) -> None:
        """Remember what the message still needs, should it come again."""
        if run.identity is None:
            return
        self._turn(room=REMEMBERED)
        self._ended[run.identity] = FOLLOWED_UP if isinstance(outcome, Succeeded) else outcome

    def _turn(self, room: float = math.inf) -> None:
        """Forget the older ones, when there are many or they have become old."""
        now = time.monotonic()
        if len(self._ended) >= room or now - self._turned_at > REMEMBERED_FOR:
            self._ended_before, self._ended, self._turned_at = self._ended, {}, now

    def give_back(self, known: Identity | None) -> None:
        """Remember that the message comes again because it was given back, and for no other reason."""
        if known is not None:
            self._given_back[known] = None
            if len(self._given_back) > REMEMBERED:
                del self._given_back[next(iter(self._given_back))]

    def was_given_back(self, identity: Identity | None) -> bool:
        """Whether that is why it comes again; asked once for each time."""
        return identity is not None and self._given_back.pop(identity, self) is None

    def owed(self, identity: Identity) -> Outcome | None:
        """What a message whose run has ended still needs; None when no such run is known."""
        self._turn()
        return self._ended.get(identity) or self._ended_before.get(identity)

    def held(self, identity: Identity) -> Run | None:
        """The run that goes on, and will be settled on its session."""
        run = self._going_on.get(identity)
        return run if run is not None and run.delivery.is_live and run.is_unsettled else None

    def orphan(self, identity: Identity) -> Run | None:
        """The run that goes on, and whose session ended before it was settled."""
        run = self._going_on.get(identity)
        if run is None or run.delivery.is_live or run.delivery.is_settled:
            return None
        if run.settling is not None and run.settling.done():  # decided by hand, and nobody could be told
            return None
        return run
