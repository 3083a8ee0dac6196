from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from brokerjobs import delay
from brokerjobs.delay import LONGEST, UNIT
from brokerjobs.errors import ConfigurationError
from brokerjobs.retry import Retry

ERROR = ConnectionError("gateway is away")
RNG = st.floats(min_value=0, max_value=1, exclude_max=True)
ATTEMPTS = st.integers(min_value=1, max_value=1000)
FIRST = st.floats(min_value=0.01, max_value=1000)
FACTOR = st.floats(min_value=1, max_value=10)
CAP = st.floats(min_value=0.01, max_value=LONGEST)


def waits(retry: Retry, attempts: int, rng: Callable[[], float] = lambda: 0.999) -> list[float | None]:
    return [retry.after(attempt, ERROR, rng=rng) for attempt in range(1, attempts + 1)]


# ---- the default: doubling, with jitter


def test_default_gives_up_after_twelve_attempts() -> None:
    retry = Retry()

    found = waits(retry, 13)

    assert None not in found[:11]
    assert found[11:] == [None, None]


def test_default_doubles_from_a_second_to_an_hour() -> None:
    retry = Retry(jitter=False, max_attempts=100)

    assert waits(retry, 5) == [1, 2, 4, 8, 16]
    assert waits(retry, 14)[11:] == [2048, 3600, 3600]


@given(ATTEMPTS, FIRST, FACTOR, CAP, RNG)
def test_jittered_wait_stays_between_zero_and_its_bound(
    attempt: int, first: float, factor: float, cap: float, chance: float
) -> None:
    retry = Retry(1001, first=first, factor=factor, cap=cap)

    wait = retry.after(attempt, ERROR, rng=lambda: chance)

    assert wait is not None
    assert 0 <= wait <= retry.bound(attempt) <= cap
    assert wait >= retry.bound(attempt) * chance * (1 - 1e-9) - 2e-6


@given(ATTEMPTS, FIRST, FACTOR, CAP)
def test_bound_grows_up_to_its_cap_and_never_falls(
    attempt: int, first: float, factor: float, cap: float
) -> None:
    retry = Retry(1001, first=first, factor=factor, cap=cap, jitter=False)

    assert retry.bound(attempt) <= retry.bound(attempt + 1) <= cap
    assert retry.bound(1) == min(first, cap)
    assert retry.after(attempt, ERROR) == retry.bound(attempt)


@given(st.integers(min_value=1, max_value=30), RNG)
def test_jittered_wait_costs_few_hops(attempt: int, chance: float) -> None:
    """Each bit of a delay is a queue to pass; only the bound itself may need more."""
    retry = Retry(100)

    wait = retry.after(attempt, ERROR, rng=lambda: chance)

    assert wait is not None
    assert delay.units(wait).bit_count() <= 3 or wait == retry.bound(attempt)


def test_crowd_that_failed_together_comes_back_spread() -> None:
    retry = Retry()
    rng = random.Random(7).random

    found = {retry.after(8, ERROR, rng=rng) for _ in range(1000)}

    assert len(found) > 20
    assert min(filter(None, found)) < 10
    assert max(filter(None, found)) > 100


@pytest.mark.parametrize("factor", [2, 2.0, 1.5, 10**6])
def test_attempt_number_of_any_size_is_answered_at_once(factor: float) -> None:
    """A stranger may write any number into the header, and a tenacity strategy may allow any."""
    retry = Retry(stop=tenacity.stop_never, factor=factor)

    assert retry.bound(2**62) == 3600
    assert retry.after(2**62, ERROR, rng=lambda: 0.5) is not None


def test_factor_of_one_waits_the_same_each_time() -> None:
    assert waits(Retry(5, factor=1, first=10, jitter=False), 5) == [10, 10, 10, 10, None]


# ---- how often, and for what


@given(st.integers(min_value=1, max_value=50), st.integers(min_value=1, max_value=100))
def test_attempts_are_counted_with_the_first_included(max_attempts: int, attempt: int) -> None:
    wait = Retry(max_attempts).after(attempt, ERROR)

    assert (wait is None) is (attempt >= max_attempts)


def test_one_attempt_is_no_retry() -> None:
    assert Retry(1).after(1, ERROR) is None


@pytest.mark.parametrize(
    ("error", "retried"),
    [
        (ConnectionError(), True),
        (ConnectionResetError(), True),
        (ValueError(), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_only_wanted_errors_are_retried(error: BaseException, retried: bool) -> None:
    retry = Retry(on=ConnectionError)

    assert (retry.after(1, error) is not None) is retried


def test_never_is_stronger_than_on() -> None:
    retry = Retry(on=(OSError, ValueError), never_on=(ConnectionError, UnicodeError))

    assert retry.after(1, OSError()) is not None
    assert retry.after(1, ValueError()) is not None
    assert retry.after(1, ConnectionResetError()) is None
    assert retry.after(1, UnicodeDecodeError("utf-8", b"", 0, 1, "")) is None


def test_what_is_no_exception_of_a_program_is_not_retried_by_default() -> None:
    assert Retry().after(1, GeneratorExit()) is None
    assert Retry(on=BaseException).after(1, GeneratorExit()) is not None


# ---- explicit delays


def test_explicit_delays_are_waited_as_given() -> None:
    retry = Retry(delays=[10, "30s", timedelta(seconds=90), 270])

    assert retry.max_attempts == 5
    assert waits(retry, 5) == [10, 30, 90, 270, None]


def test_last_delay_repeats_when_attempts_outnumber_them() -> None:
    assert waits(Retry(5, delays=[10, 30]), 5) == [10, 30, 30, 30, None]


def test_attempts_may_be_fewer_than_delays() -> None:
    assert waits(Retry(2, delays=[10, 30, 90]), 2) == [10, None]


def test_no_delays_are_one_attempt() -> None:
    assert Retry(delays=[]).after(1, ERROR) is None
    assert Retry(1, delays=[]).after(1, ERROR) is None


# ---- tenacity's strategies


@pytest.mark.parametrize(
    ("wait", "attempt", "expected"),
    [
        (tenacity.wait_fixed(7), 3, 7),
        (tenacity.wait_incrementing(start=5, increment=10), 3, 25),
        (tenacity.wait_exponential(multiplier=2, max=60), 4, 16),
        (tenacity.wait_exponential(multiplier=2, max=60), 10, 60),
        (tenacity.wait_chain(tenacity.wait_fixed(1), tenacity.wait_fixed(9)), 5, 9),
        (tenacity.wait_fixed(2) + tenacity.wait_fixed(3), 1, 5),
        (tenacity.wait_none(), 1, 0),
        (lambda state: state.attempt_number * 1.5, 4, 6),
    ],
)
def test_wait_strategy_decides_how_long(wait: Any, attempt: int, expected: float) -> None:
    assert Retry(wait=wait).after(attempt, ERROR) == expected


def test_random_wait_strategy_stays_in_its_range() -> None:
    retry = Retry(wait=tenacity.wait_random(5, 9))

    assert all(5 <= (retry.after(1, ERROR) or 0) <= 9 for _ in range(50))


@pytest.mark.parametrize(("given_wait", "expected"), [(-5, 0), (1e30, LONGEST), (float("nan"), 0)])
def test_wait_strategy_out_of_range_is_brought_into_it(given_wait: float, expected: float) -> None:
    assert Retry(wait=lambda _: given_wait).after(1, ERROR) == expected


def test_wait_strategy_leaves_the_number_of_attempts() -> None:
    assert waits(Retry(wait=tenacity.wait_fixed(1)), 12)[10:] == [1, None]


def test_stop_strategy_replaces_the_number_of_attempts() -> None:
    retry = Retry(stop=tenacity.stop_after_delay(3600), jitter=False)

    assert retry.max_attempts is None
    assert retry.after(500, ERROR, elapsed=3599) is not None
    assert retry.after(2, ERROR, elapsed=3601) is None


def test_stop_strategy_and_number_of_attempts_both_count() -> None:
    retry = Retry(5, stop=tenacity.stop_after_delay(60))

    assert retry.after(4, ERROR, elapsed=59) is not None
    assert retry.after(4, ERROR, elapsed=61) is None
    assert retry.after(5, ERROR, elapsed=0) is None


def test_stop_strategy_sees_the_wait_to_come() -> None:
    retry = Retry(stop=tenacity.stop_before_delay(60), wait=tenacity.wait_fixed(20))

    assert retry.after(1, ERROR, elapsed=30) == 20
    assert retry.after(2, ERROR, elapsed=50) is None


@pytest.mark.parametrize(
    "stop", [tenacity.stop_after_attempt(3), tenacity.stop_after_attempt(3) | tenacity.stop_never]
)
def test_stop_strategy_may_count_attempts(stop: Any) -> None:
    assert [wait is None for wait in waits(Retry(stop=stop), 4)] == [False, False, True, True]


@pytest.mark.parametrize(
    ("strategy", "wanted", "unwanted"),
    [
        (tenacity.retry_if_exception_type(OSError), OSError(), ValueError()),
        (tenacity.retry_if_not_exception_type(ValueError), OSError(), ValueError()),
        (tenacity.retry_if_exception_message(match="503"), OSError("503 busy"), OSError("404 gone")),
        (tenacity.retry_if_exception(lambda error: bool(error.args)), OSError(1), OSError()),
        (
            tenacity.retry_if_exception_type(OSError) & tenacity.retry_if_exception_message("no"),
            OSError("no"),
            OSError("yes"),
        ),
    ],
)
def test_retry_strategy_decides_for_what(strategy: Any, wanted: Exception, unwanted: Exception) -> None:
    retry = Retry(retry=strategy)

    assert retry.after(1, wanted) is not None
    assert retry.after(1, unwanted) is None


def test_never_on_is_stronger_than_a_retry_strategy() -> None:
    retry = Retry(retry=tenacity.retry_always, never_on=ValueError)

    assert retry.after(1, OSError()) is not None
    assert retry.after(1, ValueError()) is None


def test_strategy_is_asked_about_this_attempt_alone() -> None:
    seen: list[tuple[int, BaseException | None, float | None]] = []

    def look(state: tenacity.RetryCallState) -> bool:
        assert state.outcome is not None
        seen.append((state.attempt_number, state.outcome.exception(), state.seconds_since_start))
        return True

    Retry(retry=look).after(3, ERROR, elapsed=12.0)

    [(attempt, error, elapsed)] = seen
    assert (attempt, error) == (3, ERROR)
    assert elapsed == pytest.approx(12.0)


# ---- what cannot work is refused where it is written


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"max_attempts": 0}, "max_attempts must be 1 or more, not 0"),
        ({"max_attempts": -1}, "max_attempts"),
        ({"factor": 0.5}, "factor must be 1 or more, not 0.5"),
        ({"factor": float("nan")}, "factor"),
        ({"first": -1}, "first must be"),
        ({"cap": "soon"}, "cap must be"),
        ({"cap": LONGEST + UNIT}, "longest possible wait is 388d"),
        ({"delays": [10, "x"]}, "delays must be"),
        ({"delays": [10, LONGEST + UNIT]}, "longest possible wait"),
        ({"delays": [], "max_attempts": 3}, "delays is empty"),
        ({"delays": [1], "wait": tenacity.wait_none()}, "either delays or wait"),
        ({"on": "ConnectionError"}, "on must be an exception class"),
        ({"on": ConnectionError()}, "on must be an exception class"),
        ({"never_on": [ValueError]}, "never_on must be an exception class or a tuple"),
        ({"never_on": (ValueError, int)}, "never_on must be"),
    ],
)
def test_policy_that_cannot_work_is_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        Retry(**options)


@pytest.mark.parametrize(
    ("retry", "expected"),
    [
        (Retry(), "<Retry 12 attempts, 1s × 2, at most 1h>"),
        (Retry(delays=[10, 30, 90]), "<Retry 4 attempts, 10s/30s/1m30s>"),
        (Retry(stop=tenacity.stop_after_delay(60)), "<Retry stop_after_delay attempts, 1s × 2, at most 1h>"),
        (Retry(3, wait=tenacity.wait_fixed(1)), "<Retry 3 attempts, wait_fixed>"),
    ],
)
def test_policy_is_shown_in_a_line(retry: Retry, expected: str) -> None:
    assert repr(retry) == expected


def test_what_the_job_did_not_raise_is_retried_whatever_the_policy_retries() -> None:
    for policy in Retry(2, delays=[10], on=ConnectionError), Retry(2, delays=[10], never_on=Exception):
        assert policy.after(1, OSError()) is None
        assert policy.after(1, OSError(), is_its_own=False) == 10
        assert policy.after(2, OSError(), is_its_own=False) is None
