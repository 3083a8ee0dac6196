from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerjobs.durations import seconds, text
from brokerjobs.errors import ConfigurationError


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (0, 0.0),
        (30, 30.0),
        (1.5, 1.5),
        (timedelta(minutes=5), 300.0),
        (timedelta(microseconds=1), 1e-6),
        ("90", 90.0),
        ("0.25", 0.25),
        ("500ms", 0.5),
        ("30s", 30.0),
        ("10m", 600.0),
        ("2h", 7200.0),
        ("3d", 259_200.0),
        ("1h30m", 5400.0),
        (" 10m ", 600.0),
    ],
)
def test_duration_is_read_as_people_write_it(written: Any, expected: float) -> None:
    assert seconds(written) == expected


@pytest.mark.parametrize(
    "written",
    [
        "", " ", "soon", "10 minutes", "5x", "1:30", "-5s", "nan", "inf", "1e400", "9" * 400 + "h",
        -1, -0.001, math.nan, math.inf, 10**400, timedelta(seconds=-1),
        True, None, b"10", [], {},
    ],
)  # fmt: skip
def test_what_is_no_duration_is_refused_by_name(written: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^timeout must be"):
        seconds(written, name="timeout")


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
def test_number_of_seconds_is_itself(value: float) -> None:
    assert seconds(value) == seconds(str(value)) == value


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=10_000)))
def test_timedelta_is_its_seconds(value: timedelta) -> None:
    assert seconds(value) == value.total_seconds()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0s"),
        (0.25, "250ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (9.99, "9.99s"),
        (30, "30s"),
        (59.6, "1m"),
        (90, "1m30s"),
        (3600, "1h"),
        (3661, "1h1m"),
        (86_400, "1d"),
        (388.36 * 86_400, "388d8h"),
        (math.inf, "for ever"),
    ],
)
def test_duration_is_written_for_people(value: float, expected: str) -> None:
    assert text(value) == expected


@given(st.floats(min_value=0.001, max_value=1e9))
def test_what_is_written_reads_back_as_about_the_same(value: float) -> None:
    assert seconds(text(value)) == pytest.approx(value, rel=0.05, abs=0.0006)
