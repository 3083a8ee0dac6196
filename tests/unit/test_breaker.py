"""When a circuit opens, what it hears while it is open, and how it closes again."""

from __future__ import annotations

from typing import Any

import pytest

from brokerjobs import Breaker, ConfigurationError
from brokerjobs.breaker import Circuit


def circuit(failures: int = 3, within: float = 60) -> Circuit:
    return Circuit(Breaker(failures, within=within, rest=30))


def fail(circuit: Circuit, *times: float) -> list[bool]:
    return [circuit.record(failed=True, now=now) for now in times]


def test_failures_within_the_window_open_it() -> None:
    tried = circuit()

    assert fail(tried, 0, 30, 60) == [False, False, True]
    assert tried.state == "open"


def test_failures_that_are_too_old_do_not_count() -> None:
    tried = circuit()

    assert fail(tried, 0, 30, 61, 90) == [False, False, False, True]


def test_a_success_begins_the_count_anew() -> None:
    tried = circuit()

    fail(tried, 1, 2)
    assert tried.record(failed=False, now=3) is False
    assert fail(tried, 4, 5, 6) == [False, False, True]


def test_what_ends_while_it_is_open_changes_nothing() -> None:
    tried = circuit(failures=1)
    fail(tried, 1)

    assert tried.record(failed=False, now=2) is False
    assert tried.record(failed=True, now=2) is False
    assert tried.state == "open"


@pytest.mark.parametrize(("failed", "state"), [(False, "closed"), (True, "open")])
def test_one_probe_decides(failed: bool, state: str) -> None:
    tried = circuit()
    fail(tried, 1, 2, 3)
    tried.probe()
    assert tried.state == "probing"

    assert tried.record(failed=failed, now=1000) is True

    assert tried.state == state


def test_after_a_good_probe_the_count_begins_anew() -> None:
    tried = circuit()
    fail(tried, 1, 2, 3)
    tried.probe()
    tried.record(failed=False, now=4)

    assert fail(tried, 5, 6) == [False, False]


def test_only_an_open_circuit_is_probed() -> None:
    tried = circuit()
    tried.probe()

    assert tried.state == "closed"


def test_without_a_breaker_it_never_opens() -> None:
    tried = Circuit(None)

    assert not any(fail(tried, *range(1000)))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"failures": 0}, "failures must be 1 or more"),
        ({"failures": True}, "failures must be 1 or more"),
        ({"within": 0}, "breaker: within must be more than 0"),
        ({"rest": "soon"}, "breaker: rest must be"),
    ],
)
def test_breaker_that_cannot_work_is_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        Breaker(**options)
