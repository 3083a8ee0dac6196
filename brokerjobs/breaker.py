"""A circuit breaker: when a queue's jobs fail one after another, stop, wait, and try one before going on.

closed ── enough failures within the window ──► open ── after the rest ──► probing ── a success ──► closed
▲                            │
└───────── a failure ────────┘
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

from brokerjobs.durations import Duration, seconds, text
from brokerjobs.errors import ConfigurationError

State = Literal["closed", "open", "probing"]


@dataclass(frozen=True, slots=True)
class Breaker:
    """When a worker stops taking from a queue for a while, because what its jobs depend on seems to be down.

    Args:
        failures: that many failed attempts
        within: in this time, without a success between them, open the circuit.
        rest: how long the queue rests before one job is tried.

    Raises:
        ConfigurationError: for values that cannot work.
    """

    failures: int = 20
    within: Duration = "1m"
    rest: Duration = "30s"

    def __post_init__(self) -> None:
        if isinstance(self.failures, bool) or not isinstance(self.failures, int) or self.failures < 1:
            raise ConfigurationError(f"breaker: failures must be 1 or more, not {self.failures!r}")
        for name in ("within", "rest"):
            value = seconds(getattr(self, name), name=f"breaker: {name}")
            if value == 0:
                raise ConfigurationError(f"breaker: {name} must be more than 0")
            object.__setattr__(self, name, value)

    @property
    def rest_seconds(self) -> float:
        return seconds(self.rest)

    def __str__(self) -> str:
        return f"{self.failures} failures within {text(seconds(self.within))}"


class Circuit:
    """The breaker of one queue in one worker.

    Args:
        breaker: its rules; None never opens.
    """

    def __init__(self, breaker: Breaker | None) -> None:
        self.breaker = breaker
        self.state: State = "closed"
        self._failures: deque[float] = deque()

    def record(self, *, failed: bool, now: float) -> bool:
        """Take in how an attempt ended; gives whether the state is another one now.

        While probing it must be told of the probe only; while open it hears nothing, since what ends then began before.
        """
        if self.breaker is None or self.state == "open":
            return False
        if not failed:
            self._failures.clear()
            changed = self.state == "probing"
            self.state = "closed"
            return changed
        self._failures.append(now)
        while self._failures[0] < now - seconds(self.breaker.within):
            self._failures.popleft()
        if self.state == "probing" or len(self._failures) >= self.breaker.failures:
            self.state = "open"
            return True
        return False

    def probe(self) -> None:
        """The rest is over: let one job through."""
        if self.state == "open":
            self.state = "probing"
