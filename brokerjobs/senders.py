"""Who sent a job, as far as RabbitMQ vouches for it.

A publisher may write its user's name into the property `user_id`; RabbitMQ refuses the message unless it is true. A
copy (retry, dead letter, replay) carries the name of whoever copied, so the copier notes the first sender in a header.
Anybody can write that header: it counts only beside the verified name of a copier that is trusted. A copier that
cannot tell the first sender says so by an empty header, or its own name would stand for the stranger's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from brokerjobs.errors import ConfigurationError
from brokerjobs.message import Message
from brokerjobs.settings import Settings

HEADER = "user-id"


@dataclass(frozen=True, slots=True)
class Senders:
    """Tells who sent a message, and signs what is published.

    Args:
        user: our own name in RabbitMQ.
        copiers: whose word counts on who sent the original; ourselves among them.
        signs: whether we write our name into what we publish.
    """

    user: str
    copiers: frozenset[str]
    signs: bool

    @classmethod
    def of(cls, settings: Settings) -> Senders:
        return cls(
            settings.user, frozenset({settings.user, *settings.trusted_copiers}), settings.send_user_id
        )

    def first(self, message: Message) -> str:
        """Who first sent a message that was delivered; empty where nobody vouches for that."""
        return self._first(message.user_id, message)

    def signed(self, message: Message) -> Message:
        """The message as we publish it."""
        if not message.hop:
            return replace(message, user_id=self.user) if self.signs else message
        if self.signs:
            marks = {**message.marks, HEADER: self._first(message.copied_from, message)}
            return replace(message, user_id=self.user, marks=marks)
        if message.copied_from:  # proves nothing, but people want to know
            return replace(message, marks={**message.marks, HEADER: message.copied_from})
        return message

    def refusal(self, message: Message, required: Sequence[str]) -> str:
        """Why a queue that takes jobs of these users does not take this message; empty when it does."""
        first = self.first(message)
        if first in required:
            return ""
        who = f"it was sent by user {first!r}" if first else "RabbitMQ vouches for nobody who sent it"
        return f"{who}; this queue takes jobs of {', '.join(required)} only (require_user)"

    def check(self, queue: str, required: Sequence[str]) -> None:
        """Raises ConfigurationError where jobs would not be recognised any more after their first retry."""
        if required and not self.signs:
            raise ConfigurationError(
                f"queue {queue!r} takes jobs of certain users only (require_user), so set send_user_id for its "
                "workers, for those who send to it, and for those who replay its dead letters"
            )

    def _first(self, verified: str, message: Message) -> str:
        noted = message.marks.get(HEADER)
        return noted if noted is not None and verified in self.copiers else verified
