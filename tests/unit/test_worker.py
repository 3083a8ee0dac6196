"""How a worker begins to consume."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from brokerjobs import Consumer, loop_lag
from brokerjobs import settings as settings_module
from brokerjobs.errors import ConfigurationError
from brokerjobs.worker import Worker
from tests.unit.test_instruments import hold_up
from tests.waiting import eventually_async


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


async def test_event_loop_is_minded_before_there_is_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_lag, "LOOK", 0.01)
    monkeypatch.setattr(loop_lag, "MOST", 0.2)
    emails = Consumer("emails")
    worker = Worker([emails], settings_module.load(url="amqp://localhost"))

    @emails.on_startup
    async def compute() -> None:
        await eventually_async(lambda: worker._lag.is_expecting)
        hold_up(0.3)
        await eventually_async(lambda: "event loop blocked" in [line["event"] for line in lines])
        raise ZeroDivisionError

    with capture_logs() as lines, pytest.raises(ConfigurationError, match="ZeroDivisionError"):
        await worker.run()
    assert not worker._lag.is_expecting
