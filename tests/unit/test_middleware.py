from __future__ import annotations

from typing import Any

import pytest

from brokerjobs.context import Context
from brokerjobs.message import Message
from brokerjobs.middleware import Middleware, Next, compose

CONTEXT = Context(message=Message(job="a.b", routing_key="a.b"), queue="a")


def noting(name: str, journal: list[str]) -> Middleware:
    async def middleware(context: Context, call_next: Next) -> Any:
        journal.append(f"{name} before")
        try:
            return f"{name}({await call_next()})"
        finally:
            journal.append(f"{name} after")

    return middleware


async def test_first_middleware_is_the_outermost() -> None:
    journal: list[str] = []

    async def run() -> str:
        journal.append("run")
        return "done"

    result = await compose([noting("a", journal), noting("b", journal)], CONTEXT, run)()

    assert journal == ["a before", "b before", "run", "b after", "a after"]
    assert result == "a(b(done))"


async def test_error_passes_through_all_on_its_way_out() -> None:
    journal: list[str] = []

    async def run() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await compose([noting("a", journal), noting("b", journal)], CONTEXT, run)()

    assert journal == ["a before", "b before", "b after", "a after"]


async def test_middleware_may_keep_the_job_from_running() -> None:
    async def refuse(context: Context, call_next: Next) -> str:
        return f"not now, {context.job}"

    async def run() -> None:
        raise AssertionError("must not run")

    assert await compose([refuse], CONTEXT, run)() == "not now, a.b"


async def test_without_middleware_there_is_only_the_job() -> None:
    async def run() -> int:
        return 7

    assert compose([], CONTEXT, run) is run
