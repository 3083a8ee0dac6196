from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerjobs import delay
from brokerjobs.delay import LEVELS, LONGEST, UNIT
from brokerjobs.errors import DelayTooLong

COUNTS = st.integers(min_value=0, max_value=2**LEVELS - 1)
DELAYS = st.floats(min_value=0, max_value=LONGEST)
# The most that a wait of three bits can be; above it only the longest is left.
MOST_OF_THREE_BITS = (0b111 << (LEVELS - 3)) * UNIT


def levels(count: int) -> list[int]:
    """The levels in which a message waits, by where it is published and what its routing key says."""
    words = delay.key(count, delay.to_queue("emails")).split(".")[:-2]
    entry = delay.entry_level(count)
    return [level for level, word in enumerate(words) if word == "1"] + ([] if entry is None else [entry])


@given(DELAYS)
def test_units_never_end_early_and_less_than_one_late(seconds: float) -> None:
    waited = delay.units(seconds) * UNIT

    assert waited >= seconds - 2e-6  # noise of the clock
    assert waited < seconds + UNIT


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, 0), (-1, 0), (1e-9, 0), (0.001, 1), (0.125, 1), (0.125 + 1e-9, 1), (0.126, 2), (1, 8), (5, 40)],
)
def test_units_are_eighths_of_a_second_rounded_up(seconds: float, expected: int) -> None:
    assert delay.units(seconds) == expected


def test_longest_delay_is_held_and_nothing_beyond() -> None:
    assert delay.units(LONGEST) == 2**LEVELS - 1

    for beyond in (math.nextafter(LONGEST, math.inf), LONGEST + UNIT, 1e30, math.inf):
        with pytest.raises(DelayTooLong, match="beyond the longest, 388d"):
            delay.units(beyond)


@given(COUNTS)
def test_key_spells_the_delay_in_bits(count: int) -> None:
    assert sum(2**level for level in levels(count)) == count
    assert delay.key(count, delay.to_queue("emails")).endswith("@q.emails")


@given(COUNTS)
def test_key_fits_what_amqp_allows(count: int) -> None:
    longest_name = "q" * 80 + "." + "j" * 80

    assert len(delay.key(count, delay.to_key(longest_name)).encode()) <= 255


@given(COUNTS)
def test_key_is_no_longer_than_its_delay(count: int) -> None:
    entry = delay.entry_level(count)

    assert delay.key(count, delay.to_queue("emails")).count(".") == (entry or 0) + 1


@given(DELAYS, st.integers(min_value=1, max_value=LEVELS))
def test_coarse_delay_is_never_below_and_needs_few_waits(seconds: float, at_most: int) -> None:
    rounded = delay.coarse(seconds, at_most)

    assert seconds - 2e-6 <= rounded <= LONGEST
    highest = (2**at_most - 1) << (LEVELS - at_most)
    assert delay.units(rounded).bit_count() <= at_most or seconds > highest * UNIT


@given(st.floats(min_value=UNIT, max_value=MOST_OF_THREE_BITS))
def test_coarse_delay_is_at_most_a_quarter_longer_and_three_waits(seconds: float) -> None:
    assert delay.coarse(seconds) <= (seconds + UNIT) * 1.25
    assert delay.units(delay.coarse(seconds)).bit_count() <= 3


@pytest.mark.parametrize("seconds", [0.0, 0.125, 1.0, 2.0, 4.0, 7.0, 3584.0])
def test_coarse_delay_keeps_what_is_coarse_already(seconds: float) -> None:
    assert delay.coarse(seconds) == seconds


@pytest.mark.parametrize("seconds", [LONGEST, LONGEST * 2, math.inf])
def test_coarse_delay_ends_at_the_longest(seconds: float) -> None:
    assert delay.coarse(seconds) == LONGEST


@given(COUNTS, st.from_regex(r"[a-z]{1,5}(\.[a-z]{1,5}){0,3}", fullmatch=True))
def test_topic_key_is_found_behind_a_delay(count: int, routing_key: str) -> None:
    assert delay.target_of(delay.key(count, delay.to_key(routing_key))) == routing_key


@pytest.mark.parametrize(
    "key",
    [
        "",
        "emails.welcome",
        delay.key(40, delay.to_queue("emails")),
        "0.1.0",
        "@k",
        "0.1.@k",
        "0.1.@k.",
        "0.2.@k.emails",
        "01.@k.emails",
        "emails.@k.welcome",
        "k.emails",
    ],
)
def test_no_topic_key_is_found_where_none_is(key: str) -> None:
    assert delay.target_of(key) is None
