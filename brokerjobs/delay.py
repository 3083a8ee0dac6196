"""Binary delay levels: how a delay is spelled as a routing key.

Level k is a queue in which a message waits 2^k units of 125 ms. A delay is a number of units, and each
bit set in it is one wait: 5 s = 40 units = 101000 in binary = one wait in level 5 and one in level 3.
The routing key carries the bits, highest first, then where to go when the delay is over:

    0.0. … .1.0.1.0.0.0.q.emails            back to exactly the queue `emails`
    0.0. … .1.0.1.0.0.0.k.emails.welcome    by topic, as if published now with the key `emails.welcome`

All functions here are pure; `topology` makes queues of them.
"""

from __future__ import annotations

import math

from brokerjobs.durations import text
from brokerjobs.errors import DelayTooLong

LEVELS = 28
UNIT = 0.125  # seconds: a power of two, so whole seconds need no more bits than with levels of 1 s
LONGEST: float = (2**LEVELS - 1) * UNIT  # seconds, 388 days


def units(seconds: float) -> int:
    """The delay in whole units, rounded up, so that nothing runs early.

    Raises:
        DelayTooLong: beyond LONGEST.
    """
    if seconds > LONGEST:
        raise DelayTooLong(f"a delay of {text(seconds)} is beyond the longest, {text(LONGEST)}")
    # A microsecond of clock noise must not cost a whole unit.
    return max(0, math.ceil(seconds / UNIT - 1e-5))


def coarse(seconds: float, bits: int = 3) -> float:
    """The nearest delay at or above `seconds` that needs at most `bits` waits.

    Each bit set is a hop through a queue, so delays whose exact length does not matter (jitter) are drawn from these.
    """
    count = units(min(seconds, LONGEST))
    shift = max(0, count.bit_length() - bits)
    rounded = -(-count >> shift) << shift
    return float(min(rounded, 2**LEVELS - 1)) * UNIT


def key(count: int, target: str) -> str:
    """The routing key for a delay of `count` units, then on to `target` (see `to_queue`, `to_key`)."""
    return ".".join(format(count, f"0{LEVELS}b")) + "." + target


def entry_level(count: int) -> int | None:
    """The level at which to publish: that of the highest bit set; None when there is nothing to wait for.

    Entering at the top level instead costs a routing step per zero (440-1,660 messages/s against 6,200-7,000).
    """
    return count.bit_length() - 1 if count else None


def to_queue(queue: str) -> str:
    return f"q.{queue}"


def to_key(routing_key: str) -> str:
    return f"k.{routing_key}"


def target_of(routing_key: str) -> str | None:
    """The topic key behind a delayed key, `emails.welcome`; None for a key to a queue or any other key."""
    words = routing_key.split(".", LEVELS + 1)
    if len(words) == LEVELS + 2 and words[LEVELS] == "k" and set(words[:LEVELS]) <= {"0", "1"}:
        return words[-1]
    return None


def pass_pattern(level: int, bit: int) -> str:
    """The binding pattern of a level's exchange for messages whose bit at `level` is `bit`."""
    return "*." * (LEVELS - 1 - level) + f"{bit}.#"


def due_pattern(target: str) -> str:
    """The binding pattern of the due exchange for `target`, whatever the bits were."""
    return "*." * LEVELS + target
