"""Background jobs on RabbitMQ."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brokerjobs.breaker import Breaker
    from brokerjobs.client import Client, SendManyError
    from brokerjobs.consumer import Consumer
    from brokerjobs.context import Context, current_job
    from brokerjobs.errors import (
        AccessRefused,
        BrokerJobsError,
        BrokerUnreachable,
        ConfigurationError,
        DelayTooLong,
        InvalidArguments,
        JobCrashed,
        JobTimeout,
        MessageTooLarge,
        NotSerializable,
        PublishRefused,
        PublishUnknown,
        Reject,
        RetryLater,
        TopologyMismatch,
        UnknownQueue,
        Unroutable,
        WrongLoop,
    )
    from brokerjobs.job import Job, asend_many, send_many
    from brokerjobs.message import Message
    from brokerjobs.middleware import Middleware, Next
    from brokerjobs.retry import Retry
    from brokerjobs.settings import Settings
    from brokerjobs.transport import JobHandle
    from brokerjobs.worker import Worker

__version__ = "0.1.0"

# Imported when first used: `brokerjobs --help` and a program that only publishes stay light.
_WHERE = {
    "AccessRefused": "errors",
    "Breaker": "breaker",
    "BrokerJobsError": "errors",
    "BrokerUnreachable": "errors",
    "Client": "client",
    "ConfigurationError": "errors",
    "Consumer": "consumer",
    "Context": "context",
    "DelayTooLong": "errors",
    "InvalidArguments": "errors",
    "Job": "job",
    "JobCrashed": "errors",
    "JobHandle": "transport",
    "JobTimeout": "errors",
    "Message": "message",
    "MessageTooLarge": "errors",
    "Middleware": "middleware",
    "Next": "middleware",
    "NotSerializable": "errors",
    "PublishRefused": "errors",
    "PublishUnknown": "errors",
    "Reject": "errors",
    "Retry": "retry",
    "RetryLater": "errors",
    "SendManyError": "client",
    "Settings": "settings",
    "TopologyMismatch": "errors",
    "UnknownQueue": "errors",
    "Unroutable": "errors",
    "Worker": "worker",
    "WrongLoop": "errors",
    "asend_many": "job",
    "current_job": "context",
    "send_many": "job",
}

__all__ = [
    "AccessRefused",
    "Breaker",
    "BrokerJobsError",
    "BrokerUnreachable",
    "Client",
    "ConfigurationError",
    "Consumer",
    "Context",
    "DelayTooLong",
    "InvalidArguments",
    "Job",
    "JobCrashed",
    "JobHandle",
    "JobTimeout",
    "Message",
    "MessageTooLarge",
    "Middleware",
    "Next",
    "NotSerializable",
    "PublishRefused",
    "PublishUnknown",
    "Reject",
    "Retry",
    "RetryLater",
    "SendManyError",
    "Settings",
    "TopologyMismatch",
    "UnknownQueue",
    "Unroutable",
    "Worker",
    "WrongLoop",
    "asend_many",
    "current_job",
    "send_many",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'brokerjobs' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"brokerjobs.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
