"""Durations as people write them: 30, 1.5, "10m", "1h30m", timedelta(minutes=5)."""

from __future__ import annotations

import math
from datetime import timedelta

import durationpy

from brokerjobs.errors import ConfigurationError

Duration = float | timedelta | str


def seconds(value: Duration, *, name: str = "duration") -> float:
    """The duration in seconds.

    Args:
        value: a number of seconds, a timedelta, or a text with units ("500ms", "30s", "10m", "2h", "3d");
            a text without a unit is seconds.
        name: what the value is called in the error.

    Raises:
        ConfigurationError: if it is not a duration, negative, or not finite.
    """
    result = _parse(value, name)
    if not math.isfinite(result) or result < 0:
        raise ConfigurationError(f"{name} must be a finite duration of 0 or more, not {value!r}")
    return result


def _parse(value: Duration, name: str) -> float:
    match value:
        case bool():
            pass
        case int() | float():
            try:
                return float(value)
            except OverflowError:  # an int of some 300 digits
                return math.inf
        case timedelta():
            return value.total_seconds()
        case str():
            try:
                return float(value)
            except ValueError:
                pass
            try:
                return durationpy.from_str(value.strip()).total_seconds()
            except (ValueError, OverflowError):
                pass
    raise ConfigurationError(
        f"{name} must be seconds, a timedelta, or a text such as '90', '10m' or '1h30m', not {value!r}"
    )


def text(value: float) -> str:
    """The duration for people: 0.25 → "250ms", 90 → "1m30s"."""
    if value == math.inf:
        return "for ever"
    if value < 1:
        return f"{value * 1000:.0f}ms" if value else "0s"
    if value < 10:
        return f"{value:.3g}s"
    whole = round(value)
    parts = []
    for unit, size in ("d", 86400), ("h", 3600), ("m", 60), ("s", 1):
        count, whole = divmod(whole, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts[:2])
