"""Exit codes, as sysexits.h has them where it has one."""

from __future__ import annotations

from brokerjobs.errors import (
    AccessRefused,
    BrokerJobsError,
    BrokerUnreachable,
    ConfigurationError,
    NotConsuming,
)
from brokerjobs.node.errors import RabbitMQUnavailable

DONE = 0
FAILURE = 1
USAGE = 2
UNREACHABLE = 69  # no broker answers
DRAIN_TIMEOUT = 75  # stopped, but some jobs had to be given back unfinished
NOT_CONSUMING = 76  # connected, messages wait, and none is delivered
CONFIGURATION = 78  # wrong settings, password, permissions or topology
INTERRUPTED = 130  # a second Ctrl-C or SIGTERM: ended at once


def exit_code(error: BrokerJobsError) -> int:
    match error:
        case BrokerUnreachable() | RabbitMQUnavailable():
            return UNREACHABLE
        case ConfigurationError() | AccessRefused():
            return CONFIGURATION
        case NotConsuming():
            return NOT_CONSUMING
    return FAILURE
