"""`brokerjobs top` goes on looking when the broker goes away, and gives up when there never was one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

import pytest

from brokerjobs.cli import top
from brokerjobs.cli.picture import Picture
from brokerjobs.cli.top import Top
from brokerjobs.errors import BrokerJobsError, BrokerUnreachable, ConfigurationError, UnknownQueue
from brokerjobs.inspection import Look
from brokerjobs.settings import Settings
from tests.unit.looks import NOW, counts, look

Seen = Look | BrokerJobsError


class Screen:
    """Notes what it is told; the play ends with an error that ends it."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def show(self, picture: Picture) -> None:
        self.told.append(f"at {picture.look.at - NOW:g}")

    def lose(self, why: str, again_in: float) -> None:
        assert again_in == 0.0
        self.told.append(why)


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Let looks be these, one after another; an error at a connect or a look ends the connection."""
    monkeypatch.setattr("random.uniform", lambda *_: 0.0)

    async def play(*seen: Seen, **options: Any) -> list[str]:
        left = list(seen)

        class Watch:
            def __init__(self, *_: Any, **__: Any) -> None:
                pass

            async def __aenter__(self) -> Self:
                return self

            async def __aexit__(self, *_: object) -> None:
                pass

            async def look(self) -> Look:
                if not left:
                    await asyncio.Event().wait()
                now = left.pop(0)
                if isinstance(now, BrokerJobsError):
                    raise now
                return now

        monkeypatch.setattr(top, "Watch", Watch)
        screen = Screen()
        told: dict[str, Any] = {"interval": 0.0, "once": False, "patience": 1.0, **options}
        watcher = Top(Settings(), told.pop("queues", ["emails"]), **told)
        try:
            async with asyncio.timeout(0.2):
                await watcher._watch(screen)
        except TimeoutError:
            screen.told.append("goes on")
        return screen.told

    return play


async def test_broker_that_goes_away_is_tried_again(play: Callable[..., Any]) -> None:
    gone, wrong = BrokerUnreachable("gone"), ConfigurationError("its users are not there yet")

    assert await play(look(NOW), gone, gone, wrong, look(NOW + 9)) == [
        "at 0", "gone", "gone", "its users are not there yet", "at 9", "goes on",
    ]  # fmt: skip


async def test_broker_that_never_was_there_is_an_error(play: Callable[..., Any]) -> None:
    with pytest.raises(BrokerUnreachable):
        await play(BrokerUnreachable("gone"))


async def test_queue_that_is_not_there_is_an_error_if_it_was_named(play: Callable[..., Any]) -> None:
    undeclared = look(NOW, [counts(ready=None)])
    with pytest.raises(UnknownQueue, match="no queue 'emails'"):
        await play(undeclared)
    assert await play(undeclared, queues=[]) == ["at 0", "goes on"]
    assert await play(look(NOW), undeclared) == ["at 0", "at 0", "goes on"]  # somebody has deleted it


async def test_once_shows_the_second_look_which_has_rates(play: Callable[..., Any]) -> None:
    assert await play(look(NOW), look(NOW + 2), look(NOW + 4), once=True) == ["at 2"]
    with pytest.raises(BrokerUnreachable):
        await play(look(NOW), BrokerUnreachable("gone"), once=True)
