"""What is counted of the connections of one role: whether there is one, how often anew, for how long in vain."""

from __future__ import annotations

from brokerjobs.metrics import Metrics


class ConnectionRecord:
    """That of one role.

    Args:
        metrics: where it is counted.
        role: consumer or publisher.
    """

    def __init__(self, metrics: Metrics, role: str) -> None:
        self._connected = metrics.connected.labels(role)
        self._reconnects = metrics.reconnects.labels(role)
        self._blocked = metrics.blocked.labels(role)
        self._was_connected = False

    def opened(self) -> None:
        """There is a connection, the first one or another."""
        self._connected.set(1)
        if self._was_connected:
            self._reconnects.inc()
        self._was_connected = True

    def lost(self) -> None:
        """There is none, and one is wanted."""
        self._connected.set(0)

    def alarmed(self, is_on: bool) -> None:
        """RabbitMQ takes nothing from a connection; or does so again, or that connection has ended."""
        if is_on:
            self._blocked.begin()
        else:
            self._blocked.end()
