"""What went wrong in an attempt, as text that fits into headers and survives its process."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

ERROR_LIMIT = 4 * 1024  # bytes
TRACEBACK_LIMIT = 16 * 1024  # bytes
FRAMES = 40
_SAID = "__brokerjobs_failure__"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One failed attempt.

    Args:
        kind: the exception's class, `smtplib.SMTPServerDisconnected`; empty when no exception was involved.
        text: its message.
        traceback: as Python prints it.
    """

    kind: str = ""
    text: str = ""
    traceback: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}" if self.kind and self.text else self.kind or self.text

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """What is to be said of an error; of one that came from another process, what was said there."""
        if isinstance(said := getattr(error, _SAID, None), Failure):
            return said
        name, module = type(error).__qualname__, type(error).__module__
        is_well_known = module in ("builtins", "__main__") or module.startswith("brokerjobs.")
        return cls(
            kind=name if is_well_known else f"{module}.{name}",
            text=cut(_say(error), ERROR_LIMIT),
            traceback=cut_middle(_traceback(error), TRACEBACK_LIMIT),
        )


def said_of(error: BaseException, failure: Failure) -> None:
    """Let `Failure.of` give this for the error: its own traceback does not reach back to where it was raised."""
    setattr(error, _SAID, failure)


def _say(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as second:  # an exception's own __str__ may be broken
        return f"<its message could not be made: {type(second).__name__}>"


def _traceback(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error, limit=-FRAMES))
    except Exception as second:  # the same, inside the traceback module
        return f"<no traceback: {type(second).__name__}>"


def cut(text: str, limit: int) -> str:
    """The text in at most `limit` bytes of UTF-8."""
    if text.isascii() and len(text) <= limit:
        return text
    raw = text.encode(errors="replace")
    if len(raw) <= limit:
        return raw.decode()
    return raw[: limit - 3].decode(errors="ignore") + "…"


def cut_middle(text: str, limit: int) -> str:
    """The text in at most `limit` bytes, keeping its start and its end: in a traceback both matter."""
    raw = text.encode(errors="replace")
    if len(raw) <= limit:
        return raw.decode()
    half = (limit - 20) // 2
    start, end = raw[:half].decode(errors="ignore"), raw[-half:].decode(errors="ignore")
    return f"{start}\n  [… cut …]\n{end}"
