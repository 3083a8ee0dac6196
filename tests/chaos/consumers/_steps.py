"""What all jobs here do: journal the start, do the work, end as planned, journal that."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from brokerjobs import Reject, Retry, RetryLater, current_job
from tests.chaos import journal

DELAYS = (0.25, 0.5, 1.0)  # seconds
MAX_ATTEMPTS = len(DELAYS) + 1
RETRY = Retry(delays=DELAYS)
LATER = 0.75  # seconds

_namespace = os.environ.get("BROKERJOBS_NAMESPACE", "")
_prefix = f"{_namespace}." if _namespace else ""
_lock = threading.Lock()
_count = 0
_journal: journal.Journal | None = None


class Planned(Exception):
    """The failure that was asked for."""


@contextmanager
def step(fails: int, later: int = 0) -> Iterator[int]:
    """One run of a job; gives its attempt.

    Args:
        fails: how many attempts fail; -1 rejects at once.
        later: how many turns, the first ones, ask to run later.
    """
    context = current_job()
    hop, attempt = context.message.hop, context.attempt
    number = _begin(id=context.id, queue=_prefix + context.queue, hop=hop, attempt=attempt,
                    redelivered=context.redelivered, pid=_worker())  # fmt: skip
    try:
        yield attempt
    except BaseException:  # cancelled: it outran its timeout, or the worker ends
        _end(number, succeeded=False)
        raise
    if hop < later:
        _end(number, succeeded=False, again_in=LATER, later=True)
        raise RetryLater(LATER)
    if fails < 0:
        _end(number, succeeded=False)
        raise Reject("as planned")
    if attempt <= fails:
        _end(number, succeeded=False, again_in=DELAYS[attempt - 1] if attempt < MAX_ATTEMPTS else 0.0)
        raise Planned(f"attempt {attempt} fails as planned")
    _end(number, succeeded=True)


def _begin(**fields: object) -> int:
    global _journal, _count
    with _lock:
        if _journal is None:
            _journal = journal.of_this_process()
        _count += 1
        number = _count
    _journal.note("start", run=number, **fields)
    return number


def _end(number: int, *, succeeded: bool, again_in: float = 0.0, later: bool = False) -> None:
    assert _journal is not None
    _journal.note("finish", run=number, succeeded=succeeded, again_in=again_in, later=later)


def _worker() -> int:
    """The process that has the message: an isolated job runs in a child of it."""
    program = getattr(sys.modules["__main__"], "__spec__", None)
    return os.getppid() if program and program.name == "brokerjobs.executor.child" else os.getpid()
