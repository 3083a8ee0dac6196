from __future__ import annotations

import threading

import pytest

from brokerjobs import transport
from brokerjobs.client import Client
from brokerjobs.settings import Settings
from brokerjobs.testing import Recorder
from brokerjobs.transport import sender, use_sender


def test_sender_is_the_one_given() -> None:
    recorder = Recorder()

    use_sender(recorder)

    assert sender() is recorder


def test_sender_given_back_is_the_one_before() -> None:
    first, second = Recorder(), Recorder()

    assert use_sender(first) is None
    assert use_sender(second) is first
    assert use_sender(None) is second


def test_default_sender_is_made_from_settings_given_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_settings", None)
    given = Settings(namespace="shop")

    transport.use_settings(given)

    made = sender()
    assert isinstance(made, Client)
    assert made.settings is given


def test_default_sender_is_one_client_for_all_threads() -> None:
    """Made of the settings at the first use; it connects at the first send."""
    found: list[transport.Sender] = []
    gate = threading.Barrier(8)

    def look() -> None:
        gate.wait(timeout=10)
        found.append(sender())

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)

    assert len(found) == 8
    assert len(set(map(id, found))) == 1
    assert isinstance(found[0], Client)
