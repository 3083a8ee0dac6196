"""Which jobs the demo publishes, and what goes wrong with them: all of it from one seed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

from brokerjobs.job import SendArguments
from brokerjobs.message import Message
from consumers._gateway import Fate, Gateway
from consumers.emails import address_of, welcome
from consumers.orders import job_id, validate

FEWEST = 20  # jobs; fewer could not show each kind of failure
UNKNOWN_JOB_TRIES = 3

QUEUES = ("emails", "orders", "payments", "shipping")


@dataclass(frozen=True, slots=True, kw_only=True)
class ByName:
    """A job that is sent by its name, as a program does that does not have the consumers' code."""

    job: str
    arguments: Mapping[str, Any]
    options: SendArguments = field(default_factory=SendArguments)


@dataclass(slots=True, kw_only=True)
class Expected:
    """How it must end, given the seed: each job runs at least once, and at most its attempts."""

    done: int = 0
    dead: Counter[str] = field(default_factory=Counter)  # by reason
    retried: int = 0  # as long as nothing is delivered twice


@dataclass(slots=True, kw_only=True)
class Plan:
    """Jobs to publish and faults to inject.

    Args:
        messages: to send in one go.
        by_name: to send one by one.
        busy: recipients of mail whom the mail server puts off, and how often.
        unknown: recipients whom it refuses for good.
        orders: ids of the orders.
    """

    messages: list[Message] = field(default_factory=list)
    by_name: list[ByName] = field(default_factory=list)
    busy: dict[str, int] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    orders: list[str] = field(default_factory=list)
    expected: Expected = field(default_factory=Expected)

    @property
    def jobs(self) -> int:
        return len(self.messages) + len(self.by_name)


def make(seed: int, jobs: int) -> Plan:
    """A plan with so many jobs; the steps that orders send come on top."""
    plan, rng = Plan(), random.Random(seed)
    users = count(1)
    _add_broken(plan, users)
    _add_by_name(plan, users, rng, urgent=max(1, jobs // 20), delayed=max(2, jobs // 50))
    _add_orders(plan, rng, seed, jobs // 3)
    _add_welcomes(plan, users, rng, jobs - plan.jobs)
    rng.shuffle(plan.messages)
    return plan


def _add_broken(plan: Plan, users: Iterator[int]) -> None:
    """One of each kind that no retry mends."""
    plan.messages.append(Message(job=welcome.name, routing_key=welcome.name, body=b"user 7, please"))
    plan.by_name.append(ByName(job=welcome.name, arguments={"user_id": "seven"}))
    plan.by_name.append(ByName(job="emails.goodbye", arguments={"user_id": next(users)}))
    nobody = next(users)
    plan.messages.append(welcome.message(nobody))
    plan.unknown.append(address_of(nobody))
    plan.expected.dead.update(["json", "arguments", "unknown_job", "rejected"])
    plan.expected.retried += UNKNOWN_JOB_TRIES


def _add_by_name(plan: Plan, users: Iterator[int], rng: random.Random, urgent: int, delayed: int) -> None:
    options = [SendArguments(priority=9) for _ in range(urgent)]
    options += [SendArguments(delay=rng.choice([2, 3.5, 5])) for _ in range(delayed)]
    for chosen in options:
        plan.by_name.append(ByName(job=welcome.name, arguments={"user_id": next(users)}, options=chosen))
    plan.expected.done += len(options)


def _add_orders(plan: Plan, rng: random.Random, seed: int, number: int) -> None:
    _add_order(plan, rng, "good", "card-0", items={"cup": 1_000_000})
    gateway = Gateway(seed)
    one_of_each: list[Fate] = ["declined", "slow", "down"]
    cards = [next(card for card in _cards() if gateway.fate(card) == fate) for fate in one_of_each]
    for card in [*cards, *islice(_cards(), number - len(cards) - 1)]:
        _add_order(plan, rng, gateway.fate(card), card)


def _add_order(
    plan: Plan, rng: random.Random, fate: Fate, card: str, items: dict[str, int] | None = None
) -> None:
    order_id = f"order-{len(plan.orders) + 1}"
    plan.orders.append(order_id)
    email = f"customer{len(plan.orders)}@example.com"
    options = validate.options(id=job_id(order_id, "validate"), priority=rng.choice([4, 4, 4, 6]))
    basket = items or {
        name: rng.randint(1, 4) for name in rng.sample(["tea", "coffee", "cup"], rng.randint(1, 3))
    }
    plan.messages.append(options.message(order_id, basket, card, email))
    expected = plan.expected
    if items:
        expected.dead["rejected"] += 1
    elif fate in ("good", "slow"):
        expected.done += 5  # validate, charge, confirm, receipt, ship
        expected.retried += 2 * (fate == "slow")
        if rng.random() < 0.05:
            plan.busy[email] = 1
            expected.retried += 1
    else:
        expected.done += 1
        expected.dead["rejected" if fate == "declined" else "exhausted"] += 1
        expected.retried += 4 * (fate == "down")


def _add_welcomes(plan: Plan, users: Iterator[int], rng: random.Random, number: int) -> None:
    greeted = list(islice(users, number))
    for user in greeted:
        options = welcome.options(priority=rng.choice([1, 4, 4, 4]))
        plan.messages.append(options.message(user, rng.choice(["en", "de"])))
    for user in rng.sample(greeted, max(1, number // 12)):
        plan.busy[address_of(user)] = rng.choice([1, 1, 2])
    plan.expected.done += number
    plan.expected.retried += sum(
        plan.busy[address_of(user)] for user in greeted if address_of(user) in plan.busy
    )


def _cards() -> Iterator[str]:
    return (f"card-{number}" for number in count(1))
