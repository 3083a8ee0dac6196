"""Binary delay levels: how a delay is spelled as a routing key.

Level k is a queue in which a message waits 2^k units of 125 ms. A delay is a number of units, and each
bit set in it is one wait: 5 s = 40 units = 101000 in binary = one wait in level 5 and one in level 3.
A message is published at the level of the highest bit set; its routing key carries the bits below that one, the
lowest first, then where to go when the delay is over:

    0.0.0.1.0.@q.emails            5 s from level 5, then back to exactly the queue `emails`
    0.0.0.1.0.@k.emails.welcome    5 s, then by topic, as if published with the key `emails.welcome`

So keys are as short as the delay allows, which is what a topic exchange's time goes into
(docs/decisions/0003-delay-levels.md). All functions here are pure; `topology` makes queues of them.
"""

from __future__ import annotations

import math

from brokerjobs.durations import text
from brokerjobs.errors import DelayTooLong

LEVELS = 28
UNIT = 0.125  # seconds: a power of two, so whole seconds need no more bits than with levels of 1 s
LONGEST: float = (2**LEVELS - 1) * UNIT  # seconds, 388 days
# Words that no queue, job or pattern of users may contain.
TO_QUEUE, TO_KEY = "@q", "@k"


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


def entry_level(count: int) -> int | None:
    """The level at which to publish: that of the highest bit set; None when there is nothing to wait for."""
    return count.bit_length() - 1 if count else None


def key(count: int, target: str) -> str:
    """The routing key at the entry level of `count` units, then on to `target` (see `to_queue`, `to_key`)."""
    below = max(0, count.bit_length() - 1)
    return ".".join([*(str(count >> level & 1) for level in range(below)), target])


def to_queue(queue: str) -> str:
    return f"{TO_QUEUE}.{queue}"


def to_key(routing_key: str) -> str:
    return f"{TO_KEY}.{routing_key}"


def target_of(routing_key: str) -> str | None:
    """The topic key behind a delayed key, `emails.welcome`; None for a key to a queue or any other key."""
    bits, marker, target = f".{routing_key}".partition(f".{TO_KEY}.")
    if marker and target and set(bits.split(".")) <= {"", "0", "1"}:
        return target
    return None


def next_pattern(level: int, following: int) -> str:
    """The binding pattern, after a wait in `level`, of messages whose next wait is in the lower level `following`."""
    return ".".join([*"*" * following, "1", *"0" * (level - 1 - following), "#"])


def no_wait_pattern(level: int, down_to: int) -> str:
    """The binding pattern, after a wait in `level`, of messages with no wait in the levels below, to `down_to`."""
    return ".".join([*"*" * down_to, *"0" * (level - down_to), "#"])


def due_pattern(target: str) -> str:
    """The binding pattern of the due exchange for `target`, whatever the bits were."""
    return f"#.{target}"
