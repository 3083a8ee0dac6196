"""The name of this process, as people read it in RabbitMQ, in dead letters and in what workers answer.

Its host and number tell it from all others, but in containers: those upon the host's network have its name too, and a
process 1 each. There the namespace that numbers its processes belongs to the name.
"""

from __future__ import annotations

import os
import socket

NAMESPACE = "/proc/self/ns/pid"
HOST = 0xEFFFFFFC  # the number that Linux gives to the namespace of the host itself


def process_name() -> str:
    """Unlike that of any other process of the network that lives now."""
    name = f"{socket.gethostname()}:{os.getpid()}"
    namespace = _namespace()
    return name if namespace == HOST else f"{name}-{namespace & 0xFFFFFFF:x}"


def _namespace() -> int:
    try:
        return os.stat(NAMESPACE).st_ino
    except OSError:  # no Linux
        return HOST
