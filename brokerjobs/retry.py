"""When a failed job runs again, or gives up.

The life of a failing job: an attempt raises; `Retry.after` says how many seconds to wait, or that it is over.
The worker publishes a copy with the next attempt number into the delay levels, waits for the confirm, then acks
the original. No worker holds it while it waits. When the attempts are spent, or the error is one that another
attempt cannot mend, the copy goes to the dead letter queue instead.

tenacity's strategies can take each decision over (`wait`, `stop`, `retry`): its vocabulary, RabbitMQ's clock.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence

import tenacity

from brokerjobs import delay
from brokerjobs.durations import Duration, seconds, text
from brokerjobs.errors import ConfigurationError

Errors = type[BaseException] | tuple[type[BaseException], ...]
Wait = Callable[[tenacity.RetryCallState], float | int]
Decision = Callable[[tenacity.RetryCallState], bool]


class Retry:
    """A retry policy: how often, after which waits, for which errors.

    By default 12 attempts with waits that double from 1 s to at most 1 h, each drawn between zero and that
    bound (full jitter: a crowd that failed together does not come back together).

    Args:
        max_attempts: runs in all, the first included; with `delays` one more than there are delays.
        delays: explicit waits, such as [10, 30, 90, 270]; when attempts outnumber them, the last repeats.
        first: the first wait of the doubling.
        factor: how much longer each wait is than the one before.
        cap: the longest wait.
        jitter: False waits the full bound each time; explicit delays are never jittered.
        on: retry only these errors.
        never_on: never retry these; stronger than `on`.
        wait: a tenacity wait strategy instead of the doubling, such as `wait_random_exponential(max=600)`.
        stop: a tenacity stop strategy instead of `max_attempts`, such as `stop_after_delay(3600)`.
        retry: a tenacity retry strategy instead of `on`, such as `retry_if_exception_message(match="503")`.

    Raises:
        ConfigurationError: when arguments contradict each other or a wait is beyond the delay levels.
    """

    __slots__ = (
        "_never_on", "_on", "_retry", "_stop", "_wait",
        "cap", "delays", "factor", "first", "jitter", "max_attempts",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913  (a policy is its keywords)
        self,
        max_attempts: int | None = None,
        *,
        delays: Sequence[Duration] | None = None,
        first: Duration = 1.0,
        factor: float = 2.0,
        cap: Duration = 3600.0,
        jitter: bool = True,
        on: Errors = Exception,
        never_on: Errors = (),
        wait: Wait | None = None,
        stop: Decision | None = None,
        retry: Decision | None = None,
    ) -> None:
        self.delays = tuple(seconds(value, name="delays") for value in delays) if delays is not None else None
        self.first = seconds(first, name="first")
        self.factor = float(factor)  # of ints, a power of a stranger's attempt number could fill the memory
        self.cap = seconds(cap, name="cap")
        self.jitter = jitter
        self.max_attempts = self._attempts(max_attempts, stop)
        self._on, self._never_on = _errors(on, "on"), _errors(never_on, "never_on")
        self._wait, self._stop, self._retry = wait, stop, retry
        self._check(wait)

    def _attempts(self, max_attempts: int | None, stop: Decision | None) -> int | None:
        if max_attempts is not None:
            if max_attempts < 1:
                raise ConfigurationError(f"max_attempts must be 1 or more, not {max_attempts}")
            return max_attempts
        if self.delays is not None:
            return len(self.delays) + 1
        return None if stop else 12

    def _check(self, wait: Wait | None) -> None:
        if self.delays is not None and wait is not None:
            raise ConfigurationError("give either delays or wait, not both")
        if self.delays == () and self.max_attempts != 1:
            raise ConfigurationError("delays is empty: give at least one, or max_attempts=1")
        if not 1 <= self.factor < math.inf:
            raise ConfigurationError(f"factor must be 1 or more, not {self.factor}")
        if max((self.cap, *(self.delays or ()))) > delay.LONGEST:
            raise ConfigurationError(f"the longest possible wait is {text(delay.LONGEST)}")

    def after(
        self,
        attempt: int,
        error: BaseException,
        *,
        elapsed: float = 0.0,
        rng: Callable[[], float] = random.random,
        is_its_own: bool = True,
    ) -> float | None:
        """Seconds until the next attempt, or None when this was the last.

        Args:
            attempt: the 1-based number of the attempt that failed.
            error: what it raised.
            elapsed: seconds since the first attempt began.
            rng: gives a number from 0 to below 1.
            is_its_own: False for an error that the job did not raise, of which `on` and `retry` say nothing.
        """
        state = self._state(attempt, error, elapsed)
        if is_its_own and not self._wanted(error, state):
            return None
        pause = self._pause(attempt, rng, state)
        if state is not None:
            state.upcoming_sleep = pause  # what `stop_before_delay` looks at
        return None if self._spent(attempt, state) else pause

    def retries(self, attempt: int, error: BaseException, *, elapsed: float = 0.0) -> bool:
        """Whether errors of this kind are retried at all, however many attempts are left."""
        return self._wanted(error, self._state(attempt, error, elapsed))

    def _state(self, attempt: int, error: BaseException, elapsed: float) -> tenacity.RetryCallState | None:
        uses_tenacity = not (self._wait is self._stop is self._retry is None)
        return _State.of(attempt, error, elapsed) if uses_tenacity else None

    def _wanted(self, error: BaseException, state: tenacity.RetryCallState | None) -> bool:
        if isinstance(error, self._never_on):
            return False
        if self._retry is not None and state is not None:
            return self._retry(state)
        return isinstance(error, self._on)

    def _spent(self, attempt: int, state: tenacity.RetryCallState | None) -> bool:
        if self.max_attempts is not None and attempt >= self.max_attempts:
            return True
        return self._stop is not None and state is not None and self._stop(state)

    def _pause(self, attempt: int, rng: Callable[[], float], state: tenacity.RetryCallState | None) -> float:
        if self._wait is not None and state is not None:
            return min(max(0.0, float(self._wait(state))), delay.LONGEST)
        if self.delays:
            return self.delays[min(attempt, len(self.delays)) - 1]
        bound = self.bound(attempt)
        return min(bound, delay.coarse(bound * rng())) if self.jitter else bound

    def bound(self, attempt: int) -> float:
        """The longest wait after this attempt, in seconds, without jitter."""
        try:
            bound: float = self.first * self.factor ** (attempt - 1)
        except OverflowError:
            return self.cap
        return min(self.cap, bound)

    def __repr__(self) -> str:
        if self.delays is not None:
            waits = "/".join(map(text, self.delays))
        elif self._wait is not None:
            waits = type(self._wait).__name__
        else:
            waits = f"{text(self.first)} × {self.factor:g}, at most {text(self.cap)}"
        attempts = self.max_attempts if self.max_attempts is not None else type(self._stop).__name__
        return f"<Retry {attempts} attempts, {waits}>"


class _State(tenacity.RetryCallState):
    """What a tenacity strategy looks at, made from one attempt that ran in some process at some time."""

    @classmethod
    def of(cls, attempt: int, error: BaseException, elapsed: float) -> _State:
        state = cls(tenacity.Retrying(), fn=None, args=(), kwargs={})
        outcome: tenacity.Future = tenacity.Future(attempt)
        outcome.set_exception(error)
        now = time.monotonic()
        state.start_time = now - elapsed
        state.outcome, state.outcome_timestamp = outcome, now
        state.attempt_number = attempt
        return state


def _errors(value: Errors, name: str) -> tuple[type[BaseException], ...]:
    errors = value if isinstance(value, tuple) else (value,)
    for error in errors:
        if not (isinstance(error, type) and issubclass(error, BaseException)):
            raise ConfigurationError(f"{name} must be an exception class or a tuple of them, not {error!r}")
    return errors
