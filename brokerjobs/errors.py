"""Everything that can go wrong, as one tree.

    BrokerJobsError
    ├── ConfigurationError          what was declared or set cannot work; nothing was started
    │   └── TopologyMismatch        a queue or exchange exists with other arguments
    ├── PublishRefused              surely not queued: mend the call, or send it again
    │   ├── InvalidArguments        they do not fit the job's signature
    │   ├── NotSerializable         they cannot be written as JSON
    │   ├── MessageTooLarge
    │   ├── DelayTooLong
    │   ├── UnknownQueue            no such queue, so nobody would ever run it
    │   ├── Unroutable              the broker returned it
    │   ├── AccessRefused           the user may not publish there
    │   └── BrokerUnreachable       no connection within the deadline
    ├── PublishUnknown              may be queued: a resend with the same id is safe
    ├── UndecodableMessage          a delivery that no job can take (worker side)
    ├── NotConsuming                a worker is connected, messages wait, and it gets none
    ├── QueueInUse                  somebody else goes through a queue that is for one at a time
    ├── UnknownDeadLetter           no dead letter has this id, or several have
    ├── WrongLoop                   a blocking call on a running event loop
    ├── JobTimeout                  one attempt took longer than its timeout
    └── JobCrashed                  the process in which an attempt ran died under it

`Reject` and `RetryLater` are not errors: a job raises them to say what shall happen.
"""

from __future__ import annotations

from datetime import timedelta


class BrokerJobsError(Exception):
    """The root of all errors of brokerjobs."""


class ConfigurationError(BrokerJobsError):
    """What was declared or set cannot work."""


class TopologyMismatch(ConfigurationError):
    """A queue or exchange is missing, or exists with other arguments than asked for."""


class PublishRefused(BrokerJobsError):
    """The message was surely not queued."""


class InvalidArguments(PublishRefused):
    """The arguments do not fit the job's signature."""


class NotSerializable(PublishRefused):
    """The arguments cannot be written as JSON."""


class MessageTooLarge(PublishRefused):
    """The encoded message is above the limit."""


class DelayTooLong(PublishRefused):
    """The delay is beyond what the delay levels hold."""


class UnknownQueue(PublishRefused):
    """No queue would receive this job."""


class Unroutable(PublishRefused):
    """The broker returned the message: no queue is bound for it."""


class AccessRefused(PublishRefused):
    """The broker's user may not do this."""


class BrokerUnreachable(PublishRefused):
    """No connection to the broker within the deadline; surely nothing was queued."""


class PublishUnknown(BrokerJobsError):
    """The broker did not confirm in time: the message may be queued or not.

    Sending it again with the same id is safe for jobs that tolerate at-least-once.
    """

    def __init__(self, message: str, *, id: str = "") -> None:
        super().__init__(message)
        self.id = id


class UndecodableMessage(BrokerJobsError):
    """A delivery that no job can take, and why."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class NotConsuming(BrokerJobsError):
    """A worker is connected and messages wait, but RabbitMQ gives it none."""


class QueueInUse(BrokerJobsError):
    """Somebody else goes through a queue that is for one at a time."""


class UnknownDeadLetter(BrokerJobsError):
    """No dead letter has this id, or several have."""


class WrongLoop(BrokerJobsError):
    """A blocking call on a running event loop."""


class JobTimeout(BrokerJobsError, TimeoutError):
    """One attempt took longer than its timeout."""


class JobCrashed(BrokerJobsError):
    """The process in which an attempt ran died under it.

    Args:
        exit: how it ended, such as "killed by SIGSEGV", "exit code 3" or "out of memory".
    """

    def __init__(self, message: str, *, exit: str = "") -> None:
        super().__init__(message)
        self.exit = exit


class Reject(Exception):
    """Raised by a job: do not retry, put it into the dead letter queue with this reason."""

    def __init__(self, reason: str = "rejected by the job") -> None:
        super().__init__(reason)


class RetryLater(Exception):
    """Raised by a job: run it again after this delay; no attempt is spent.

    Args:
        after: seconds, a timedelta, or a text such as "10m".
    """

    def __init__(self, after: float | timedelta | str, reason: str = "") -> None:
        super().__init__(reason or f"asked to run again after {after}")
        self.after = after

    def __reduce__(self) -> tuple[type[RetryLater], tuple[float | timedelta | str, str]]:
        return type(self), (self.after, str(self))
