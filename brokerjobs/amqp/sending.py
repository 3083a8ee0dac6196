"""What a blocking caller hands over, and waits for."""

from __future__ import annotations

import threading
import time

from brokerjobs.errors import BrokerJobsError, BrokerUnreachable, PublishUnknown
from brokerjobs.transport import Publication

Answer = bool | BaseException


class Sending:
    """One message, or one question, on its way, until the broker has answered or its caller gives up.

    Args:
        publication: the message.
        queue: of the question whether it exists.
        why: there is no answer yet.
    """

    # A future would make a condition for each message, which costs more than to write the message.
    __slots__ = (
        "_among", "_answer", "_unanswered", "alone", "doubtful", "is_given_up", "publication", "queue", "why",
        "written",
    )  # fmt: skip

    def __init__(self, publication: Publication | None = None, queue: str = "", why: str = "") -> None:
        self.publication = publication
        self.queue = queue
        self.why = why
        self.written = False
        self.doubtful = False  # written on a channel that ended before the verdict
        self.alone = False
        self.is_given_up = False
        self._among: dict[Sending, None] = {}
        self._answer: Answer | None = None
        self._unanswered = threading.Lock()
        self._unanswered.acquire()

    @property
    def id(self) -> str:
        return self.publication.message.id if self.publication else ""

    @property
    def is_answered(self) -> bool:
        return self._answer is not None

    def join(self, among: dict[Sending, None]) -> None:
        """Stay among these until there is an answer, or nobody waits for it any more."""
        self._among = among
        among[self] = None

    # -- the thread that asks

    def wait(self, deadline: float) -> bool:
        """Whether there is an answer, at the latest at this time of the monotonic clock."""
        if self._answer is not None:
            return True
        left = min(deadline - time.monotonic(), threading.TIMEOUT_MAX)
        if not self._unanswered.acquire(timeout=max(0.0, left)):
            return False
        self._unanswered.release()
        return True

    def answer(self, deadline: float) -> bool:
        """The answer; whoever asks waits no longer than this, and gives up then.

        Raises:
            BrokerJobsError: what the broker minded, or that it said nothing in time.
        """
        if not self.wait(deadline):
            self.is_given_up = True
            self._among.pop(self, None)
        # It may have been answered in this very moment.
        answer = self.give_up() if self._answer is None else self._answer
        if isinstance(answer, BaseException):
            raise answer
        return answer

    # -- the thread that knows

    def resolve(self, answer: Answer) -> None:
        """The first answer counts."""
        if self._answer is None:
            self._answer = answer
            self._unanswered.release()
            self._among.pop(self, None)

    def doubt(self) -> None:
        """The channel on which it may have been written has ended."""
        self.doubtful |= self.written

    def refuse(self, refusal: BrokerJobsError) -> None:
        """Resolve with the broker's refusal; what was written before, without a verdict, may be queued all the same."""
        self.why = str(refusal)
        self.resolve(self.give_up() if self.doubtful else refusal)

    def give_up(self) -> BrokerJobsError:
        """What its caller is told when there is no answer."""
        if not self.written:
            return BrokerUnreachable(self.why)
        return PublishUnknown(
            f"RabbitMQ did not confirm {self.publication and self.publication.message.job} {self.id}: {self.why}; "
            "it may be queued, sending it again with the same id is safe",
            id=self.id,
        )
