from __future__ import annotations

import smtplib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerjobs.failure import ERROR_LIMIT, TRACEBACK_LIMIT, Failure, cut, cut_middle


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


class Mute(Exception):
    """An exception whose text cannot be made."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


def deep(levels: int) -> None:
    if levels == 0:
        raise ValueError("at the bottom")
    deep(levels - 1)


def test_failure_names_the_exception_as_one_would_import_it() -> None:
    assert Failure.of(ValueError("no")).kind == "ValueError"
    assert Failure.of(smtplib.SMTPServerDisconnected("gone")).kind == "smtplib.SMTPServerDisconnected"
    assert Failure.of(Mute()).kind.endswith("test_failure.Mute")


def test_failure_keeps_text_and_traceback() -> None:
    failure = Failure.of(raised(KeyError("order")))

    assert failure.text == "'order'"
    assert failure.traceback.startswith("Traceback (most recent call last)")
    assert failure.traceback.rstrip().endswith("KeyError: 'order'")
    assert "in raised" in failure.traceback


def test_failure_keeps_what_caused_it() -> None:
    try:
        try:
            raise ConnectionResetError("peer")
        except ConnectionResetError as error:
            raise RuntimeError("no answer") from error
    except RuntimeError as error:
        failure = Failure.of(error)

    assert "ConnectionResetError: peer" in failure.traceback
    assert "direct cause" in failure.traceback


def test_exception_that_cannot_say_what_it_is_does_no_harm() -> None:
    failure = Failure.of(raised(Mute()))

    assert failure.text == "<its message could not be made: RuntimeError>"
    assert failure.kind.endswith("Mute")
    assert failure.traceback


class Torn(Exception):
    """An exception of which the traceback module cannot make anything."""

    @property
    def __cause__(self) -> BaseException:  # type: ignore[override]
        raise RuntimeError("no cause")


def test_exception_without_a_traceback_to_print_does_no_harm() -> None:
    failure = Failure.of(raised(Torn("torn")))

    assert (failure.text, failure.traceback) == ("torn", "<no traceback: RuntimeError>")


def test_text_and_traceback_are_cut_to_what_headers_hold() -> None:
    failure = Failure.of(raised(ValueError("é" * 100_000)))

    assert len(failure.text.encode()) <= ERROR_LIMIT
    assert len(failure.traceback.encode()) <= TRACEBACK_LIMIT


def test_deep_traceback_keeps_the_innermost_frames() -> None:
    try:
        deep(500)
    except ValueError as error:
        failure = Failure.of(error)

    assert len(failure.traceback.encode()) <= TRACEBACK_LIMIT
    assert "at the bottom" in failure.traceback


def test_lone_surrogates_are_replaced() -> None:
    """As in the name of a file that is not UTF-8."""
    failure = Failure.of(raised(FileNotFoundError("\udcff.txt")))

    assert failure.text == "?.txt"
    failure.traceback.encode()


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (Failure(kind="ValueError", text="no"), "ValueError: no"),
        (Failure(kind="ValueError"), "ValueError"),
        (Failure(text="no"), "no"),
        (Failure(), ""),
    ],
)
def test_failure_reads_as_a_line(failure: Failure, expected: str) -> None:
    assert str(failure) == expected


ANY_TEXT = st.text(st.characters(codec=None), max_size=200) | st.text("aé€😀", max_size=200)


@given(ANY_TEXT, st.integers(min_value=3, max_value=100))
def test_cut_text_fits_and_is_its_beginning(text: str, limit: int) -> None:
    short = cut(text, limit)

    assert len(short.encode()) <= limit
    clean = text.encode(errors="replace").decode()
    assert short == clean or (short.endswith("…") and clean.startswith(short[:-1]))


@given(ANY_TEXT, st.integers(min_value=40, max_value=100))
def test_text_cut_in_the_middle_keeps_both_ends(text: str, limit: int) -> None:
    short = cut_middle(text, limit)

    assert len(short.encode()) <= limit
    clean = text.encode(errors="replace").decode()
    if short != clean:
        start, end = short.split("\n  [… cut …]\n")
        assert clean.startswith(start)
        assert clean.endswith(end)
        assert start
        assert end
