"""A payment provider that fails on purpose, and always in the same way for the same seed.

It stands where an application would call its provider's API. What it does to a card depends on the seed and
the card alone, so a run can be repeated, whatever the order in which its jobs happen to run.
"""

from __future__ import annotations

import random
import threading
from typing import Literal

Fate = Literal["good", "declined", "slow", "down"]


class CardDeclined(Exception):
    """The bank says no, and will say no again."""


class Gateway:
    """Takes payments.

    Args:
        seed: which cards have which fate: 5 % are declined for good, 12 % answer only the third call, 3 % never
            answer. Without a seed all cards are good.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._seed = seed
        self._lock = threading.Lock()  # jobs run in threads
        self._calls: dict[str, int] = {}
        self._payments: dict[str, str] = {}

    def fate(self, card: str) -> Fate:
        """What happens to this card."""
        if self._seed is None:
            return "good"
        dice = random.Random(f"{self._seed} {card}").random()
        return "declined" if dice < 0.05 else "slow" if dice < 0.17 else "down" if dice < 0.20 else "good"

    def charge(self, card: str, cents: int, key: str) -> str:
        """Take the money, once per key however often it is called; gives the payment's number.

        Args:
            card: the token that stands for a card.
            cents: how much.
            key: the caller's name for this payment, the same in each attempt.

        Raises:
            CardDeclined: it will never work.
            TimeoutError: no answer came; the money may have been taken or not.
            ConnectionError: the card's bank cannot be reached.
        """
        with self._lock:
            call = self._calls[key] = self._calls.get(key, 0) + 1
            match self.fate(card):
                case "declined":
                    raise CardDeclined("the bank declines this card")
                case "down":
                    raise ConnectionError("the bank of this card cannot be reached")
                case "slow" if call == 1:
                    raise TimeoutError("the bank did not answer")
                case "slow" if call == 2:
                    # The nasty kind: the money is taken, and nobody learns of it. Only the key saves the customer.
                    self._take(key)
                    raise TimeoutError("the bank's answer got lost")
            return self._take(key)

    def _take(self, key: str) -> str:
        return self._payments.setdefault(key, f"payment-{len(self._payments) + 1}")
