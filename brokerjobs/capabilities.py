"""What each RabbitMQ version can do, in one table.

The version comes from the AMQP handshake (`server_properties`). Sources: RabbitMQ's release notes
and what was measured on 3.10.8, 4.0.5 and 4.3.6.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from brokerjobs.errors import ConfigurationError

OLDEST = (3, 10)

SINCE: dict[str, tuple[int, int]] = {
    # quorum queues with strict priorities, always on, no argument
    "quorum_priorities": (4, 3),
    # quorum queues too accept x-cancel-on-ha-failover from a consumer; nothing tells them from classic ones until 4.3
    "failover_argument_everywhere": (4, 0),
    # a policy says how long a queue waits for an acknowledgement
    "consumer_timeout_policy": (3, 12),
    # a consumer says so itself (x-consumer-timeout), on quorum queues; classic ones wait for ever
    "consumer_timeout_argument": (4, 3),
}


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The abilities of one broker.

    Args:
        version: major, minor and patch of the server.
    """

    version: tuple[int, int, int]

    def has(self, ability: str) -> bool:
        return self.version[:2] >= SINCE[ability]

    def __str__(self) -> str:
        return ".".join(map(str, self.version))

    @classmethod
    def of(cls, server_properties: Mapping[str, Any]) -> Capabilities:
        """The capabilities that the handshake's `server_properties` stand for.

        Raises:
            ConfigurationError: if the server is no RabbitMQ, or older than 3.10.
        """
        product, raw = (_text(server_properties.get(key)) for key in ("product", "version"))
        found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", raw)
        if product != "RabbitMQ" or not found:
            raise ConfigurationError(f"the broker is {product or 'unknown'} {raw}, not RabbitMQ")
        major, minor, patch = (int(part or 0) for part in found.groups())
        if (major, minor) < OLDEST:
            raise ConfigurationError(f"RabbitMQ {raw} is too old: brokerjobs needs 3.10 or later")
        return cls((major, minor, patch))


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")
