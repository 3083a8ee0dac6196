"""The nemesis: breaks one thing after the other, in an order that the seed gives, and mends each."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable

from brokerjobs.errors import ConfigurationError
from tests.chaos.faults import KINDS, Kind, Scene
from tests.chaos.stage import Stage

TRIES = 5  # for a fault that finds nothing to hit


class Nemesis:
    """Fires faults, each kind once before any again.

    Args:
        stage: what it breaks.
        say: is told what.

    Raises:
        ConfigurationError: the plan names a kind that there is not.
    """

    def __init__(self, stage: Stage, say: Callable[[str], object]) -> None:
        self._stage = stage
        self._say = say
        self.fired: Counter[str] = Counter()
        self._rng = random.Random(stage.plan.seed)
        self._scene = Scene(stage, self._rng, self.fired)
        usual = [name for name, kind in KINDS.items() if kind.cluster in (None, stage.plan.cluster)]
        wanted = [] if stage.plan.is_control else list(stage.plan.faults or usual)
        if unknown := set(wanted) - set(KINDS):
            raise ConfigurationError(
                f"there is no fault {', '.join(sorted(unknown))}; there are: {', '.join(KINDS)}, none"
            )
        self.kinds = tuple(name for name in wanted if KINDS[name].where(stage))
        self.not_run = tuple(name for name in wanted if name not in self.kinds)
        self._bag: list[str] = []
        self._number = 0

    def strike(self) -> None:
        """Fire the next fault, see it through, and leave a moment of calm."""
        if not self._bag:
            self._bag = list(self.kinds)
            self._rng.shuffle(self._bag)
        name = self._bag.pop()
        for _ in range(TRIES):
            if self.fire(KINDS[name]):
                break
        self._hold(self._rng.uniform(*self._stage.plan.pause))

    def fire(self, kind: Kind) -> bool:
        """Fire this fault; False when there was nothing to hit."""
        course = kind.course(self._scene)
        target = next(course, None)
        if target is None:
            return False
        self._number += 1
        began = self._stage.journal.note(
            "on", number=self._number, kind=kind.name, target=target, effects=sorted(kind.effects)
        )
        try:
            self._hold(float(next(course)))
            for _ in course:
                pass
        finally:
            ended = self._stage.journal.note("off", number=self._number)
        self.fired[kind.name] += 1
        self._say(f"{kind.name} ({target}) for {ended - began:.1f} s; {dict(self._stage.ledger.fates)}")
        return True

    def _hold(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._stage.look()
            time.sleep(min(0.5, left))  # noqa: TID251  (a fault has to last)
