"""How a worker begins to consume."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from brokerjobs import settings as settings_module
from brokerjobs.worker import Worker


@pytest.mark.parametrize("strict", [True, False])
async def test_queues_are_consumed_at_once_but_in_strict_order_one_after_another(
    strict: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, a job of a lower queue asks on the higher one's channel, which must be open by then."""
    said: list[str] = []

    async def consume(_: Worker, session: object, lane: Any) -> None:
        said.append(f"{lane.name} begins")
        await asyncio.sleep(0)  # noqa: TID251  (a turn for the others)
        said.append(f"{lane.name} is consumed")

    monkeypatch.setattr(Worker, "_consume", consume)
    worker = Worker([], settings_module.load(url="amqp://localhost"), strict=strict)
    gate = SimpleNamespace(resume=lambda _: None)
    worker._lanes = [SimpleNamespace(name=name, gate=gate) for name in ("high", "low")]  # type: ignore[misc]
    await worker._consume_all(SimpleNamespace())  # type: ignore[arg-type]
    assert said.index("high is consumed") < said.index("low is consumed")
    assert (said.index("high is consumed") < said.index("low begins")) is strict
