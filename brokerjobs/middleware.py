"""Code around every run: tracing, transactions, tenant switches.

    async def timed(context: Context, call_next: Next) -> Any:
        before = time.monotonic()
        try:
            return await call_next()
        finally:
            print(context.job, time.monotonic() - before)

    consumer = Consumer("emails", middleware=[timed])

The first in the list is the outermost. What one raises counts as the job's own error.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from brokerjobs.context import Context

Next = Callable[[], Awaitable[Any]]
Middleware = Callable[[Context, Next], Awaitable[Any]]


def compose(stack: Sequence[Middleware], context: Context, run: Next) -> Next:
    """One call that passes through the whole stack, outermost first, and ends in `run`."""
    call = run
    for middleware in reversed(stack):
        call = _around(middleware, context, call)
    return call


def _around(middleware: Middleware, context: Context, call: Next) -> Next:
    return lambda: middleware(context, call)
