"""How often a worker process looks for garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from brokerjobs.cli import consume


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(*consume.PYTHONS_OWN)
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def test_worker_looks_rarely_and_not_at_what_was_imported() -> None:
    consume._collect_rarely()

    assert gc.get_threshold()[0] == consume.GARBAGE
    assert gc.get_freeze_count() > 1000


def test_threshold_that_a_consumer_has_set_holds() -> None:
    gc.set_threshold(500, 5, 5)

    consume._collect_rarely()

    assert gc.get_threshold() == (500, 5, 5)
