"""What a worker tells of its queues, from what RabbitMQ answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from brokerjobs.amqp import declare
from brokerjobs.amqp.connection import ConnectionLost
from brokerjobs.errors import AccessRefused
from brokerjobs.metrics import Metrics
from brokerjobs.queue_looks import QueueLooks
from brokerjobs.topology import Names

Counts = tuple[int, int] | None


@dataclass(eq=False)
class Lane:
    """What looks see of a lane."""

    queue: str = "emails"
    due: float = 0.0


class Scene:
    """One queue and its dead letters, at a time that tests set; names as they are in the namespace `shop`."""

    connection = None

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.lane = Lane()
        self.found: dict[str, Counts | Exception] = {"shop.emails": (0, 1), "shop.emails.dead": (0, 0)}
        self.metrics = Metrics()
        self.looks = QueueLooks(Names("shop"), [self.lane], self.metrics, lambda: self.now)  # type: ignore[list-item]
        monkeypatch.setattr(declare, "counts", self.counts)

    async def counts(self, _: object, queues: Iterable[str]) -> dict[str, Counts]:
        found: dict[str, Counts] = {}
        for queue in queues:
            if isinstance(counts := self.found[queue], Exception):
                raise counts
            found[queue] = counts
        return found

    async def look(self, ready: int, *, at: float) -> None:
        self.now = at
        self.found["shop.emails"] = (ready, 1)
        session: Any = self
        await self.looks.look(session)

    async def look_in_vain(self) -> None:
        self.found["shop.emails"] = ConnectionLost("gone")
        session: Any = self
        with pytest.raises(ConnectionLost):
            await self.looks.look(session)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(
            f"brokerjobs_queue_{name}", {"queue": "emails", **labels}
        )

    def age(self, *, at: float) -> float | None:
        self.now = at
        return self.value("oldest_age_seconds")


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


async def test_what_was_found_is_told(scene: Scene) -> None:
    assert [scene.value("messages", state="ready"), scene.value("consumers")] == [None, None]  # not 0

    scene.found["shop.emails.dead"] = (3, 0)
    await scene.look(7, at=1000)

    assert scene.value("messages", state="ready") == 7
    assert scene.value("messages", state="dead") == 3
    assert scene.value("consumers") == 1


async def test_queue_that_is_not_there_has_nothing(scene: Scene) -> None:
    scene.found["shop.emails.dead"] = None

    await scene.look(7, at=1000)

    assert scene.value("messages", state="dead") == 0


async def test_who_may_not_see_the_dead_letters_is_told_of_the_queue(scene: Scene) -> None:
    scene.found["shop.emails.dead"] = AccessRefused("no")

    with pytest.raises(AccessRefused):
        await scene.look(7, at=1000)

    assert scene.value("messages", state="ready") == 7
    assert scene.value("messages", state="dead") is None


def told(scene: Scene) -> list[float | None]:
    messages = [scene.value("messages", state=state) for state in ("ready", "dead")]
    return [*messages, scene.value("consumers"), scene.value("oldest_age_seconds")]


async def test_what_cannot_be_known_now_is_not_told(scene: Scene) -> None:
    """Else a worker that was cut off would tell for hours how much there was."""
    await scene.look(7, at=1000)
    assert told(scene) == [7, 0, 1, 0]

    scene.found["shop.emails.dead"] = AccessRefused("no")
    with pytest.raises(AccessRefused):
        await scene.look(8, at=1010)
    assert told(scene) == [8, None, 1, 10]

    await scene.look_in_vain()
    assert told(scene) == [None] * 4


async def test_what_was_known_of_a_queue_makes_its_age_more_exact_when_it_is_seen_again(scene: Scene) -> None:
    await scene.look(0, at=1000)
    scene.looks.forget()
    assert told(scene) == [None] * 4

    await scene.look(5, at=1060)

    assert told(scene) == [5, 0, 1, 60]


async def test_nothing_ready_has_no_age(scene: Scene) -> None:
    await scene.look(0, at=1000)

    assert scene.age(at=2000) == 0


async def test_age_is_that_since_what_was_started_last_was_due(scene: Scene) -> None:
    await scene.look(5, at=1000)

    scene.lane.due = 1100
    assert scene.age(at=1160) == 60
    scene.lane.due = 1150
    assert scene.age(at=1160) == 10
    scene.lane.due = 1200  # its publisher's clock is ahead
    assert scene.age(at=1160) == 0


async def test_what_came_after_the_queue_was_empty_is_no_older(scene: Scene) -> None:
    scene.lane.due = 500
    await scene.look(3, at=985)
    await scene.look(0, at=1000)
    await scene.look(1, at=1015)

    assert scene.age(at=1015) == 15

    await scene.look(2, at=1030)
    assert scene.age(at=1030) == 30


async def test_while_nothing_was_started_yet_it_is_as_old_as_it_was_seen(scene: Scene) -> None:
    await scene.look(4, at=1000)
    await scene.look(4, at=1015)

    assert scene.age(at=1020) == 20
