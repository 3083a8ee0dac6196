"""How a process ended, in words."""

from __future__ import annotations

import signal

OUT_OF_MEMORY = "out of memory"
TIMEOUT = "killed: outran its timeout"


def exit_reason(code: int) -> str:
    """The end of a process for people: "killed by SIGSEGV", "exit code 3".

    Args:
        code: its exit code; where a signal killed it, minus the signal's number.
    """
    return f"killed by {_signal(-code)}" if code < 0 else f"exit code {code}"


def death_word(code: int) -> str:
    """The same for metrics, in few different words: `SIGSEGV`, `exit`."""
    return _signal(-code) if code < 0 else "exit"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no names of their own
        return f"signal {number}"
