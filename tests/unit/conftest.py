"""No unit test sees this machine: neither its environment, nor a RabbitMQ that runs on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from brokerjobs import transport

# Two busy cores must not fail a property: pytest's own timeout bounds each test.
hypothesis.settings.register_profile("unit", deadline=None, max_examples=60, print_blob=True)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=2000, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "unit"))


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("BROKERJOBS_") or name in ("RABBITMQ_URL", "AMQP_URL", "CLOUDAMQP_URL"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(autouse=True)
def _own_sender() -> Iterator[None]:
    before = transport.use_sender(None)
    yield
    transport.use_sender(before)
