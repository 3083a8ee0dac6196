from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerjobs import delay, topology
from brokerjobs.capabilities import Capabilities
from brokerjobs.delay import LEVELS, LONGEST, UNIT
from brokerjobs.errors import ConfigurationError, DelayTooLong, InvalidArguments
from brokerjobs.topology import Binding, Exchange, Names, Queue, Topology, matches

OLD = Capabilities((3, 10, 8))
MIDDLE = Capabilities((4, 0, 5))
NEW = Capabilities((4, 3, 6))
NAMES = Names()

QueueKind = Literal["auto", "classic", "quorum"]


class Broker:
    """What RabbitMQ does with a message, by the declared parts alone; waiting is added up, not waited."""

    def __init__(self, *parts: Topology) -> None:
        self.exchanges = {part.name: part for each in parts for part in each.exchanges}
        self.queues = {part.name: part for each in parts for part in each.queues}
        self.bindings: dict[str, list[Binding]] = defaultdict(list)
        for each in parts:
            for binding in each.bindings:
                self.bindings[binding.source].append(binding)

    def publish(self, exchange: str, key: str) -> list[tuple[str, int]]:
        """Where the message ends, and after how many milliseconds."""
        return sorted(
            end for queue in self.route(exchange, key) for end in self._wait(self.queues[queue], key)
        )

    def route(self, exchange: str, key: str) -> set[str]:
        found = {
            queue
            for binding in self.bindings[exchange]
            if self._takes(self.exchanges[exchange], binding, key)
            for queue in (
                self.route(binding.destination, key) if binding.to_exchange else {binding.destination}
            )
        }
        alternate = self.exchanges[exchange].arguments.get("alternate-exchange")
        return found or (self.route(str(alternate), key) if alternate else set())

    @staticmethod
    def _takes(exchange: Exchange, binding: Binding, key: str) -> bool:
        match exchange.type:
            case "topic":
                return matches(binding.key, key)
            case "direct":
                return binding.key == key
            case "fanout":
                return True

    def _wait(self, queue: Queue, key: str) -> Iterator[tuple[str, int]]:
        if "x-message-ttl" not in queue.arguments:
            yield queue.name, 0
            return
        for name, waited in self.publish(str(queue.arguments["x-dead-letter-exchange"]), key):
            yield name, waited + int(queue.arguments["x-message-ttl"])


def for_queue(name: str, capabilities: Capabilities = NEW, *, bind: tuple[str, ...] = ()) -> Topology:
    return topology.for_queue(NAMES, name, capabilities, bind=bind)


BROKER = Broker(
    topology.shared(NAMES),
    for_queue("emails"),
    for_queue("emails-archive"),
    for_queue("audit", bind=("*.created", "orders.#")),
)


# ---- the walk of a delayed message

DELAYS = st.one_of(
    st.integers(min_value=0, max_value=2**LEVELS - 1).map(lambda count: count * UNIT),
    st.floats(min_value=0, max_value=LONGEST),
    st.floats(min_value=0, max_value=60),
)


@given(DELAYS)
def test_retry_comes_back_to_exactly_its_queue_after_exactly_its_delay(seconds: float) -> None:
    exchange, key = topology.route_to_queue(NAMES, "audit", seconds)

    arrivals = BROKER.publish(exchange, key)

    assert arrivals == [("audit", delay.units(seconds) * 125)]
    assert arrivals[0][1] >= seconds * 1000 - 0.002  # never early
    assert arrivals[0][1] < seconds * 1000 + 125


@given(DELAYS)
def test_scheduled_job_is_routed_by_topic_when_it_is_due(seconds: float) -> None:
    exchange, key = topology.route(NAMES, "orders.created", seconds)

    assert BROKER.publish(exchange, key) == [("audit", delay.units(seconds) * 125)]


@given(DELAYS)
def test_scheduled_job_reaches_every_queue_that_binds_it(seconds: float) -> None:
    exchange, key = topology.route(NAMES, "emails.created", seconds)

    waited = delay.units(seconds) * 125

    assert BROKER.publish(exchange, key) == [("audit", waited), ("emails", waited)]


@given(DELAYS)
def test_job_that_no_queue_binds_is_kept_in_unrouted(seconds: float) -> None:
    for exchange, key in (
        topology.route(NAMES, "reports.daily", seconds),
        topology.route_to_queue(NAMES, "reports", seconds),
    ):
        assert BROKER.publish(exchange, key) == [("jobs.unrouted", delay.units(seconds) * 125)]


def test_undelayed_job_takes_no_detour() -> None:
    assert topology.route(NAMES, "emails.welcome", 0) == ("jobs", "emails.welcome")
    assert BROKER.publish("jobs", "emails.welcome") == [("emails", 0)]


def test_undelayed_return_to_a_queue_goes_through_the_due_exchange() -> None:
    exchange, key = topology.route_to_queue(NAMES, "emails", 0)

    assert exchange == NAMES.due
    assert BROKER.publish(exchange, key) == [("emails", 0)]


def test_backoff_in_powers_of_two_is_one_hop_each() -> None:
    for seconds in (1, 2, 4, 8, 1024):
        _, key = topology.route_to_queue(NAMES, "emails", seconds)

        assert "1" not in key.split(".")


def test_delay_beyond_the_levels_is_refused() -> None:
    for route in (topology.route, topology.route_to_queue):
        with pytest.raises(DelayTooLong):
            route(NAMES, "emails", LONGEST + 1)


def test_dead_letters_reach_only_their_own_queue() -> None:
    assert BROKER.publish(NAMES.dead_exchange, "emails") == [("emails.dead", 0)]
    assert BROKER.publish(NAMES.dead_exchange, "reports") == [("jobs.unrouted", 0)]


# ---- what is declared

EVERYTHING = [
    topology.shared(names)
    + topology.for_queue(names, "emails", capabilities, bind=["*.created"], queue_type=kind)
    for names in (NAMES, Names("shop"))
    for capabilities in (OLD, MIDDLE, NEW)
    for kind in ("auto", "classic", "quorum")
]
MENTIONS = {
    "alternate-exchange": Exchange,
    "x-dead-letter-exchange": Exchange,
}


@pytest.mark.parametrize("everything", EVERYTHING)
def test_whatever_a_part_names_is_declared_before_it(everything: Topology) -> None:
    declared: set[tuple[type, str]] = set()

    for part in everything:
        match part:
            case Exchange() | Queue():
                for argument, kind in MENTIONS.items():
                    if name := part.arguments.get(argument):
                        assert (kind, name) in declared, (
                            f"{part.name} names {name}, which comes later or never"
                        )
                declared.add((type(part), part.name))
            case Binding():
                assert (Exchange, part.source) in declared
                assert (Exchange if part.to_exchange else Queue, part.destination) in declared


@pytest.mark.parametrize("everything", EVERYTHING)
def test_nothing_is_declared_twice(everything: Topology) -> None:
    for names in (
        [exchange.name for exchange in everything.exchanges],
        [queue.name for queue in everything.queues],
        everything.bindings,
    ):
        assert len(set(names)) == len(names)


def test_mark_is_declared_last_so_that_it_vouches_for_all() -> None:
    last = list(topology.shared(NAMES))[-1]

    assert last == Exchange(name=NAMES.ready, type="fanout")


def test_delay_levels_double() -> None:
    queues = {queue.name: queue.arguments for queue in topology.shared(NAMES).queues}

    waits = [queues[NAMES.level(k)]["x-message-ttl"] for k in range(LEVELS)]

    assert waits[0] == 125
    assert all(longer == 2 * int(shorter) for shorter, longer in itertools.pairwise(waits))
    assert max(map(int, waits)) < 10 * 365 * 86_400_000  # RabbitMQ refuses more than ten years


def test_delay_levels_lose_nothing() -> None:
    """Quorum with at-least-once, which RabbitMQ drops silently without reject-publish."""
    for queue in topology.shared(NAMES).queues:
        if queue.name.startswith("jobs.v1.delay"):
            assert queue.arguments["x-queue-type"] == "quorum"
            assert queue.arguments["x-dead-letter-strategy"] == "at-least-once"
            assert queue.arguments["x-overflow"] == "reject-publish"


def test_shared_part_is_the_same_on_every_version() -> None:
    """Its arguments can never change, so they may not depend on the version that happens to be there first."""
    everything = topology.shared(NAMES)

    assert len(everything.exchanges) == 6 + LEVELS + (LEVELS - 1)
    assert len(everything.queues) == 2 + LEVELS
    assert all("x-max-priority" not in queue.arguments for queue in everything.queues)


# ---- the arguments of one queue, by version

TO_THE_DEAD = {"x-dead-letter-exchange": "jobs.dead", "x-dead-letter-routing-key": "emails"}
QUORUM = {
    "x-queue-type": "quorum",
    "x-delivery-limit": 1_000,
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
    **TO_THE_DEAD,
}
QUORUM_DEAD = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}
CLASSIC = {"x-queue-type": "classic", "x-max-priority": 9, **TO_THE_DEAD}
CLASSIC_DEAD = {"x-queue-type": "classic"}


@pytest.mark.parametrize(
    ("capabilities", "asked", "work", "dead"),
    [
        (OLD, "auto", CLASSIC, CLASSIC_DEAD),
        (MIDDLE, "auto", CLASSIC, CLASSIC_DEAD),
        (NEW, "auto", QUORUM, QUORUM_DEAD),
        (OLD, "quorum", QUORUM, QUORUM_DEAD),
        (NEW, "classic", CLASSIC, CLASSIC_DEAD),
    ],
)
def test_queue_has_the_arguments_that_its_broker_serves(
    capabilities: Capabilities, asked: QueueKind, work: dict[str, object], dead: dict[str, object]
) -> None:
    parts = topology.for_queue(NAMES, "emails", capabilities, queue_type=asked)

    assert {queue.name: dict(queue.arguments) for queue in parts.queues} == {
        "emails": work,
        "emails.dead": dead,
    }


def test_classic_queue_can_do_without_priorities() -> None:
    parts = topology.for_queue(NAMES, "emails", OLD, priorities=False)

    work = next(queue for queue in parts.queues if queue.name == "emails")

    assert dict(work.arguments) == {"x-queue-type": "classic", **TO_THE_DEAD}


def test_quorum_queue_never_gets_a_priority_argument() -> None:
    """RabbitMQ refuses x-max-priority there."""
    for capabilities in (OLD, MIDDLE, NEW):
        for priorities in (True, False):
            parts = topology.for_queue(
                NAMES, "emails", capabilities, queue_type="quorum", priorities=priorities
            )
            assert all("x-max-priority" not in queue.arguments for queue in parts.queues)


def test_no_queue_has_the_limit_that_loses_messages_on_old_brokers() -> None:
    for everything in EVERYTHING:
        for queue in everything.queues:
            assert queue.arguments.get("x-delivery-limit") != -1


def test_pattern_that_repeats_the_own_one_is_bound_once() -> None:
    parts = topology.for_queue(NAMES, "emails", NEW, bind=["emails.#", "*.created", "*.created"])

    keys = [binding.key for binding in parts.bindings if binding.source == NAMES.jobs]

    assert keys == ["emails.#", "*.created"]


# ---- names


def test_namespace_prefixes_every_exchange_and_queue_but_no_key() -> None:
    names = Names("shop")
    everything = topology.shared(names) + topology.for_queue(names, "emails", NEW)

    assert all(exchange.name.startswith("shop.jobs") for exchange in everything.exchanges)
    assert all(queue.name.startswith("shop.") for queue in everything.queues)
    assert {binding.key for binding in everything.bindings if binding.source == names.jobs} == {"emails.#"}


def test_two_namespaces_share_nothing() -> None:
    def names_in(namespace: str) -> set[str]:
        names = Names(namespace)
        parts = topology.shared(names) + topology.for_queue(names, "emails", NEW)
        return {exchange.name for exchange in parts.exchanges} | {queue.name for queue in parts.queues}

    assert not names_in("") & names_in("shop")
    assert not names_in("blog") & names_in("shop")


def test_delayed_message_stays_in_its_namespace() -> None:
    names = Names("shop")
    broker = Broker(topology.shared(names), topology.for_queue(names, "emails", NEW))

    assert broker.publish(*topology.route_to_queue(names, "emails", 5)) == [("shop.emails", 5000)]
    assert broker.publish(*topology.route(names, "emails.welcome", 5)) == [("shop.emails", 5000)]


@pytest.mark.parametrize("word", ["emails", "a", "0", "e-mails_2", "x" * 80])
def test_word_of_plain_letters_is_a_name(word: str) -> None:
    assert topology.check_word(word, "queue") == word


@pytest.mark.parametrize(
    "word",
    ["", "x" * 81, "Emails", "emails.welcome", "e mails", "émails", "emails\n", "*", "#", "a/b", "jobs"],
)
def test_word_that_breaks_routing_or_collides_is_refused(word: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^queue "):
        topology.check_word(word, "queue")


@pytest.mark.parametrize("namespace", ["Shop", "a.b", "jobs"])
def test_namespace_is_a_word_too(namespace: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^namespace "):
        Names(namespace)


@pytest.mark.parametrize("pattern", ["#", "*", "emails.#", "*.created", "a.*.b.#", "Größe.*", "x" * 160])
def test_pattern_of_words_and_wildcards_is_taken(pattern: str) -> None:
    assert topology.check_pattern(pattern) == pattern


@pytest.mark.parametrize(
    "pattern", ["", ".", "a..b", "a.", ".a", "a*", "*.#x", "a b", "a\n", "x" * 191, "é" * 96, "a.@q", "@k.#"]
)
def test_pattern_that_amqp_reads_otherwise_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigurationError, match="binding pattern"):
        topology.check_pattern(pattern)


@pytest.mark.parametrize("key", ["emails", "emails.welcome", "Größe.neu", "a b", "x" * 190])
def test_job_name_that_fits_behind_any_delay_is_taken(key: str) -> None:
    assert topology.check_routing_key(key) == key
    _, delayed = topology.route(NAMES, key, LONGEST)
    assert len(delayed.encode()) <= 255


@pytest.mark.parametrize("key", ["", "x" * 191, "é" * 96, "emails.@q.welcome", "@k", "a.@k"])
def test_job_name_that_a_delay_would_break_is_refused(key: str) -> None:
    with pytest.raises(InvalidArguments, match="job name"):
        topology.check_routing_key(key)


# ---- matching, against a translation into a regular expression


def reference(pattern: str, key: str) -> bool:
    """Every word with a dot behind it, so that '#' is any number of those."""

    def spell(words: str) -> list[str]:
        return words.split(".") if words else []

    wild = {"*": r"[^.]*\.", "#": r"(?:[^.]*\.)*"}
    expression = "".join(wild.get(word) or re.escape(word) + r"\." for word in spell(pattern))
    return re.fullmatch(expression, "".join(word + "." for word in spell(key)), re.DOTALL) is not None


WORDS = st.sampled_from(["a", "b", "aa", "", "0", "created"])
KEYS = st.lists(WORDS, max_size=6).map(".".join)
PATTERNS = st.lists(st.one_of(WORDS, st.sampled_from(["*", "#"])), max_size=6).map(".".join)


@given(PATTERNS, KEYS)
def test_matching_is_that_of_a_topic_exchange(pattern: str, key: str) -> None:
    assert matches(pattern, key) is reference(pattern, key)


@given(KEYS)
def test_hash_matches_everything_and_a_key_itself(key: str) -> None:
    assert matches("#", key)
    assert matches(key, key)


@pytest.mark.parametrize(
    ("pattern", "key", "expected"),
    [
        ("emails.#", "emails", True),
        ("emails.#", "emails.welcome.again", True),
        ("emails.#", "emails2.welcome", False),
        ("*.created", "orders.created", True),
        ("*.created", "shop.orders.created", False),
        ("#.created", "created", True),
        ("*", "", False),  # no word is no word
        ("#", "", True),
        ("*.*", ".", True),  # two empty ones
        ("a.#.b.#.c", "a.x.b.y.b.c", True),
        ("a.#.b.#.c", "a.x.c", False),
    ],
)
def test_matching_of_known_cases(pattern: str, key: str, expected: bool) -> None:
    assert matches(pattern, key) is expected


def test_matching_of_many_hashes_takes_no_time() -> None:
    """Each '#' may stand for any number of words: trying all combinations would never end."""
    assert not matches("#.a." * 19 + "b", ".".join(["a"] * 120))
