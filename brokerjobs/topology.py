"""What exists in the broker, as values: exchanges, queues, bindings, and all their names.

    publisher ──► jobs (topic) ──emails.#──► emails ──► worker
    worker, attempt failed ──► jobs.v1.delay.<k> ► jobs.v1.after.<k> ► … ► jobs.v1.due (topic) ──► emails
    worker, attempts spent ──► jobs.dead (direct) ──► emails.dead
    jobs, jobs.v1.due, jobs.dead ── what matches no queue ──► jobs.unrouted
    operator ──► jobs.control (topic) ──► every worker; cancellations also ──► jobs.cancelled (stream)

Queue arguments can never change, so the shared part carries its version in its names, and ends with a mark
(`jobs.v1.ready`), declared last: when it is there, all is there. Targets stand before sources, because what
expires towards a missing exchange waits three minutes for the next try.
Nothing here does I/O; `amqp.declare` applies a Topology.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from brokerjobs import delay
from brokerjobs.capabilities import Capabilities
from brokerjobs.errors import ConfigurationError, InvalidArguments

QueueType = Literal["classic", "quorum"]
Argument = str | int

HIGHEST_PRIORITY = 9
# AMQP's 255 bytes less the longest delay in front of it.
LONGEST_KEY = 190
# Broker-side net behind our own counting: high, because a rolling restart also counts as a delivery.
DELIVERY_LIMIT = 1_000
# Levels that one routing step looks at: more would mean many more bindings, fewer many more steps.
STRIDE = 7
# Looking at a message counts as a delivery. Never -1: 3.10 then drops it at its first redelivery.
NO_DELIVERY_LIMIT = 1_000_000

# A queue `dead` in the namespace `shop` would be the dead letter queue of a queue `shop` without one.
RESERVED = {
    "jobs": "the exchange of that name",
    "dead": "dead letter queues, such as emails.dead",
    "reader": "whoever looks through a queue, as emails.dead.reader",
    "paused": "the mark of a paused queue, such as emails.paused",
}

# Keys of the control exchange: to all workers, to the stream of cancellations alone, to who asked.
TO_WORKERS = "all"
MARK = "mark"
REPLY = "reply"
CANCEL = f"{TO_WORKERS}.cancel"
# A cancellation is forgotten after this: the stream must not grow for ever.
CANCELLED_FOR = "30D"

_WORD = re.compile(r"[a-z0-9_-]{1,80}")
_PATTERN = re.compile(r"(?:[^.*#\s]+|\*|#)(?:\.(?:[^.*#\s]+|\*|#))*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    name: str
    type: Literal["topic", "direct", "fanout"]
    arguments: Mapping[str, Argument] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    name: str
    arguments: Mapping[str, Argument] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """From an exchange to a queue, or to another exchange."""

    source: str
    destination: str
    key: str
    to_exchange: bool = False


Part = Exchange | Queue | Binding


@dataclass(frozen=True, slots=True)
class Topology:
    """Parts in the order in which they are declared."""

    parts: tuple[Part, ...]

    def __add__(self, other: Topology) -> Topology:
        return Topology(self.parts + other.parts)

    def __iter__(self) -> Iterator[Part]:
        return iter(self.parts)

    @property
    def exchanges(self) -> list[Exchange]:
        return [part for part in self.parts if isinstance(part, Exchange)]

    @property
    def queues(self) -> list[Queue]:
        return [part for part in self.parts if isinstance(part, Queue)]

    @property
    def bindings(self) -> list[Binding]:
        return [part for part in self.parts if isinstance(part, Binding)]


@dataclass(frozen=True, slots=True)
class Names:
    """The name of everything, under a namespace (empty by default) that prefixes exchanges and queues."""

    namespace: str = ""

    def __post_init__(self) -> None:
        if self.namespace:
            check_word(self.namespace, "namespace")

    def _in(self, name: str) -> str:
        return f"{self.namespace}.{name}" if self.namespace else name

    @property
    def jobs(self) -> str:
        return self._in("jobs")

    @property
    def due(self) -> str:
        return self._in("jobs.v1.due")

    @property
    def dead_exchange(self) -> str:
        return self._in("jobs.dead")

    @property
    def unrouted(self) -> str:
        return self._in("jobs.unrouted")

    @property
    def control(self) -> str:
        return self._in("jobs.control")

    @property
    def cancelled(self) -> str:
        return self._in("jobs.cancelled")

    @property
    def ready(self) -> str:
        return self._in("jobs.v1.ready")

    def level(self, k: int) -> str:
        return self._in(f"jobs.v1.delay.{k:02}")

    def after(self, k: int) -> str:
        """The exchange to which level k sends what has waited: it knows the next wait."""
        return self._in(f"jobs.v1.after.{k:02}") if k else self.due

    def queue(self, name: str) -> str:
        return self._in(name)

    def dead(self, name: str) -> str:
        return self._in(f"{name}.dead")

    def queue_of(self, name: str) -> str:
        """The queue as users say it, whose work or dead letters the broker keeps under this name."""
        return name.removeprefix(f"{self.namespace}.").removesuffix(".dead")

    def paused(self, name: str) -> str:
        """The queue whose mere existence says that nobody shall consume `name`."""
        return self._in(f"{name}.paused")


def reader_of(queue: str) -> str:
    """The exclusive queue whose owner alone goes through `queue`, until its connection ends.

    An exclusive consumer will not do: quorum queues accept a second one (3.10 to 4.3, measured).
    """
    return f"{queue}.reader"


def check_word(name: str, what: str) -> str:
    """The name, if it may stand in exchanges, queues and routing keys.

    Raises:
        ConfigurationError: unless it is one word of a-z, 0-9, _ and -, of at most 80, and not reserved.
    """
    if not _WORD.fullmatch(name):
        raise ConfigurationError(
            f"{what} {name!r} must be one word of a-z, 0-9, '_' and '-', at most 80 characters"
        )
    if name in RESERVED:
        raise ConfigurationError(f"{what} {name!r} is reserved for {RESERVED[name]}")
    return name


def check_pattern(pattern: str) -> str:
    """The binding pattern, if AMQP can match it.

    Raises:
        ConfigurationError: otherwise.
    """
    if not _PATTERN.fullmatch(pattern) or _is_too_long_or_ours(pattern):
        raise ConfigurationError(
            f"binding pattern {pattern!r} must be words, '*' (one word) or '#' (any number) joined by '.', "
            f"at most {LONGEST_KEY} bytes, none of them {delay.TO_QUEUE} or {delay.TO_KEY}"
        )
    return pattern


@lru_cache(1024)
def check_routing_key(key: str) -> str:
    """The routing key, if a job may be published with it.

    Raises:
        InvalidArguments: otherwise.
    """
    if not key or _is_too_long_or_ours(key):
        raise InvalidArguments(
            f"job name {key!r} must be 1 to {LONGEST_KEY} bytes, and no word of it "
            f"{delay.TO_QUEUE} or {delay.TO_KEY}"
        )
    return key


def _is_too_long_or_ours(text: str) -> bool:
    return len(text.encode(errors="replace")) > LONGEST_KEY or not {delay.TO_QUEUE, delay.TO_KEY}.isdisjoint(
        text.split(".")
    )


def shared(names: Names) -> Topology:
    """What all queues have in common: exchanges, the delay levels, the place for the unrouted, the mark."""
    unrouted = {"alternate-exchange": names.unrouted}
    parts: list[Part] = [
        Exchange(name=names.unrouted, type="fanout"),
        Queue(
            name=names.unrouted,
            arguments={"x-queue-type": "quorum", "x-delivery-limit": NO_DELIVERY_LIMIT},
        ),
        Binding(source=names.unrouted, destination=names.unrouted, key=""),
        Exchange(name=names.jobs, type="topic", arguments=unrouted),
        Exchange(name=names.dead_exchange, type="direct", arguments=unrouted),
        Exchange(name=names.due, type="topic", arguments=unrouted),
        Exchange(name=names.control, type="topic"),
        Queue(name=names.cancelled, arguments=_CANCELLED_ARGUMENTS),
        Binding(source=names.control, destination=names.cancelled, key=CANCEL),
        Binding(source=names.control, destination=names.cancelled, key=MARK),
    ]
    levels = range(delay.LEVELS)
    parts += [Exchange(name=names.after(k), type="topic") for k in levels[1:]]
    parts += [part for k in levels for part in _level(names, k)]
    parts += [binding for k in levels[1:] for binding in _after(names, k)]
    parts.append(Exchange(name=names.ready, type="fanout"))
    return Topology(tuple(parts))


_CANCELLED_ARGUMENTS: dict[str, Argument] = {
    "x-queue-type": "stream",
    "x-max-age": CANCELLED_FOR,
    "x-max-length-bytes": 200_000_000,
    "x-stream-max-segment-size-bytes": 10_000_000,  # whole segments are dropped, so they must be small
}


def _level(names: Names, k: int) -> list[Part]:
    """The wait of 2^k units. Its entry is a fanout, which looks at no key: the cheapest way in."""
    name = names.level(k)
    return [
        Queue(
            name=name,
            arguments={
                "x-queue-type": "quorum",
                "x-message-ttl": int(2**k * delay.UNIT * 1000),
                "x-dead-letter-exchange": names.after(k),
                # Both together: without reject-publish RabbitMQ silently falls back to at-most-once.
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            },
        ),
        Exchange(name=name, type="fanout"),
        Binding(source=name, destination=name, key=""),
    ]


def _after(names: Names, k: int) -> list[Binding]:
    """Where to go after level k: to the next wait, or past a stride of levels that are not waited in."""
    down_to = max(0, k - STRIDE)
    return [
        *(
            Binding(source=names.after(k), destination=names.level(j), key=delay.next_pattern(k, j))
            for j in range(down_to, k)
        ),
        Binding(
            source=names.after(k),
            destination=names.after(down_to),
            key=delay.no_wait_pattern(k, down_to),
            to_exchange=True,
        ),
    ]


def for_queue(
    names: Names,
    queue: str,
    capabilities: Capabilities,
    *,
    bind: Iterable[str] = (),
    queue_type: Literal["auto", "classic", "quorum"] = "auto",
    priorities: bool = True,
) -> Topology:
    """One queue: its work queue, its dead letter queue, and their bindings.

    Args:
        queue: the name users say, such as `emails`.
        bind: patterns of routing keys that the queue receives besides its own `<queue>.#`.
        queue_type: `auto` is quorum where quorum queues have strict priorities (RabbitMQ 4.3), classic before.
        priorities: False makes a classic queue twice as fast; quorum queues from 4.3 always have them.
    """
    kind = resolve_queue_type(capabilities, queue_type)
    work, dead = names.queue(queue), names.dead(queue)
    patterns = dict.fromkeys([f"{queue}.#", *map(check_pattern, bind)])
    return Topology(
        (
            Queue(name=dead, arguments=_dead_arguments(kind)),
            Binding(source=names.dead_exchange, destination=dead, key=queue),
            Queue(name=work, arguments=_work_arguments(names, queue, kind, priorities)),
            Binding(source=names.due, destination=work, key=delay.due_pattern(delay.to_queue(queue))),
            *(
                binding
                for pattern in patterns
                for binding in (
                    Binding(source=names.jobs, destination=work, key=pattern),
                    Binding(
                        source=names.due,
                        destination=work,
                        key=delay.due_pattern(delay.to_key(pattern)),
                    ),
                )
            ),
        )
    )


def resolve_queue_type(capabilities: Capabilities, asked: Literal["auto", "classic", "quorum"]) -> QueueType:
    if asked == "auto":
        return "quorum" if capabilities.has("quorum_priorities") else "classic"
    return asked


def _work_arguments(names: Names, queue: str, kind: QueueType, priorities: bool) -> dict[str, Argument]:
    last_net: dict[str, Argument] = {
        "x-dead-letter-exchange": names.dead_exchange,
        "x-dead-letter-routing-key": queue,
    }
    if kind == "quorum":
        return {
            "x-queue-type": "quorum",
            "x-delivery-limit": DELIVERY_LIMIT,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
            **last_net,
        }
    if priorities:
        return {"x-queue-type": "classic", "x-max-priority": HIGHEST_PRIORITY, **last_net}
    return {"x-queue-type": "classic", **last_net}


def _dead_arguments(kind: QueueType) -> dict[str, Argument]:
    if kind == "quorum":
        return {"x-queue-type": "quorum", "x-delivery-limit": NO_DELIVERY_LIMIT}
    return {"x-queue-type": "classic"}


def matches(pattern: str, routing_key: str) -> bool:
    """Whether a topic exchange would route `routing_key` by `pattern` (AMQP 0-9-1, section 3.1.3.3)."""
    words = _words(routing_key)
    taken = {0}  # how many words the pattern can have used up so far
    for part in _words(pattern):
        if part == "#":
            taken = set(range(min(taken), len(words) + 1))
        else:
            taken = {count + 1 for count in taken if count < len(words) and part in ("*", words[count])}
        if not taken:
            return False
    return len(words) in taken


def _words(text: str) -> list[str]:
    return text.split(".") if text else []


def route(names: Names, routing_key: str, delay_seconds: float) -> tuple[str, str]:
    """The exchange and routing key for a job published now or to run later."""
    if not delay_seconds:
        return names.jobs, routing_key
    count = delay.units(delay_seconds)
    level = delay.entry_level(count)
    if level is None:
        return names.jobs, routing_key
    return names.level(level), delay.key(count, delay.to_key(routing_key))


def route_to_queue(names: Names, queue: str, delay_seconds: float) -> tuple[str, str]:
    """The exchange and routing key into exactly one queue, now or later (retry, replay, sweep)."""
    count = delay.units(delay_seconds)
    level = delay.entry_level(count)
    exchange = names.due if level is None else names.level(level)
    return exchange, delay.key(count, delay.to_queue(queue))
