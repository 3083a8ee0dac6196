"""What a blocking caller hands over, and waits for."""

from __future__ import annotations

from concurrent.futures import Future, InvalidStateError
from contextlib import suppress

from brokerjobs.errors import BrokerJobsError, BrokerUnreachable, PublishUnknown
from brokerjobs.transport import Publication


class Sending:
    """One message, or one question, on its way; `done` resolves when the broker has answered."""

    __slots__ = ("alone", "done", "doubtful", "publication", "queue", "returned", "why", "written")

    def __init__(self, publication: Publication | None = None, queue: str = "") -> None:
        self.publication = publication
        self.queue = queue  # of the question whether it exists
        self.done: Future[bool] = Future()
        self.written = False
        self.doubtful = False  # written on a channel that ended before the verdict
        self.returned = ""
        self.alone = False
        self.why = ""

    @property
    def id(self) -> str:
        return self.publication.message.id if self.publication else ""

    def resolve(self, answer: bool | BaseException) -> None:
        with suppress(InvalidStateError):  # its caller has given up
            if isinstance(answer, BaseException):
                self.done.set_exception(answer)
            else:
                self.done.set_result(answer)

    def doubt(self) -> None:
        """The channel on which it may have been written has ended."""
        self.doubtful |= self.written and not self.returned

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
