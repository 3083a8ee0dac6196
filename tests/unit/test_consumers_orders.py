"""The example `orders`: an order goes through its steps, and a repeated step changes nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from brokerjobs import InvalidArguments, Reject
from brokerjobs.message import Message
from brokerjobs.testing import DeadLettered, Succeeded, drain, recording, run
from consumers import orders
from consumers._database import open_database, transaction
from consumers._gateway import CardDeclined, Fate, Gateway

SEED = 1


@pytest.fixture(autouse=True)
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "orders.db"
    monkeypatch.setenv("ORDERS_DATABASE", str(path))
    open_database()
    return path


@pytest.fixture(autouse=True)
def gateway(monkeypatch: pytest.MonkeyPatch) -> Gateway:
    gateway = Gateway(SEED)
    monkeypatch.setattr(orders, "gateway", gateway)
    return gateway


@pytest.fixture
def ask(database: Path) -> Callable[[str], tuple[Any, ...]]:
    def ask(question: str) -> tuple[Any, ...]:
        with closing(sqlite3.connect(database)) as connection:
            return tuple(connection.execute(question).fetchone())

    return ask


def card(fate: Fate) -> str:
    return next(name for n in range(1000) if Gateway(SEED).fate(name := f"card-{n}") == fate)


def place(order_id: str = "A1", *, fate: Fate = "good", items: dict[str, int] | None = None) -> Message:
    options = orders.validate.options(id=orders.job_id(order_id, "validate"))
    return options.message(order_id, items or {"tea": 2, "cup": 1}, card(fate), "ada@example.com")


def steps(*messages: Message) -> list[str]:
    return [message.id for message in messages]


def without_mail(message: Message) -> bool:
    return message.job != "emails.receipt"


def go(message: Message) -> list[Message]:
    """Run a message and all that follows from it; gives what ran, but the mail."""
    waiting, ran = [message], []
    while waiting:
        attempt = run(waiting.pop(0))
        ran.append(attempt.message)
        waiting += filter(without_mail, attempt.sent)
    return ran


def test_an_order_goes_through_all_its_steps(ask: Callable[[str], tuple[Any, ...]]) -> None:
    assert steps(*go(place())) == ["A1.validate", "A1.charge", "A1.confirm", "A1.ship"]

    state, cents, payment, tracking = ask("SELECT state, cents, payment, tracking FROM orders")
    assert (state, cents, payment) == ("shipped", 2 * 450 + 1290, "payment-1")
    assert len(tracking) == 12


def test_confirm_sends_the_receipt_and_the_parcel() -> None:
    go(place())
    ran = run(orders.confirm.message("A1"))

    assert [(message.job, message.id) for message in ran.sent] == [
        ("emails.receipt", "A1.receipt"),
        ("shipping.ship", "A1.ship"),
    ]


def test_a_repeated_step_changes_nothing_but_sends_the_next_again(
    ask: Callable[[str], tuple[Any, ...]],
) -> None:
    first, second = run(place()), run(place())

    assert isinstance(second.outcome, Succeeded)
    assert ask("SELECT stock FROM products WHERE name = 'tea'") == (99_998,)
    assert steps(*first.sent) == steps(*second.sent) == ["A1.charge"]


def test_all_steps_repeated_leave_the_order_as_it_was(ask: Callable[[str], tuple[Any, ...]]) -> None:
    ran = go(place())
    before = ask("SELECT * FROM orders")

    for message in ran:
        run(message)

    assert ask("SELECT * FROM orders") == before
    assert ask("SELECT count(*) FROM steps") == (4,)


def test_what_is_not_in_stock_kills_the_order_and_reserves_nothing(
    ask: Callable[[str], tuple[Any, ...]],
) -> None:
    ran = run(place(items={"tea": 2, "cup": 100_001}))

    assert isinstance(ran.outcome, DeadLettered)
    assert ran.outcome.reason == "rejected"
    assert ran.sent == []
    assert ask("SELECT stock FROM products WHERE name = 'tea'") == (100_000,)
    assert ask("SELECT state, error FROM orders") == ("failed", "not in stock: 100001 × cup")


def test_a_declined_card_is_dead_at_once(ask: Callable[[str], tuple[Any, ...]]) -> None:
    (validated,) = run(place(fate="declined")).sent
    ran = run(validated)

    assert isinstance(ran.outcome, DeadLettered)
    assert ran.outcome.reason == "rejected"
    assert ask("SELECT state, error FROM orders") == ("failed", "the bank declines this card")


def test_a_slow_bank_is_asked_again_and_takes_the_money_once(ask: Callable[[str], tuple[Any, ...]]) -> None:
    (charge,) = run(place(fate="slow")).sent

    attempts = [run(charge) for _ in range(3)]

    assert [attempt.retry_in for attempt in attempts] == [orders.WAITS[0], orders.WAITS[0], None]
    assert isinstance(attempts[-1].outcome, Succeeded)
    assert ask("SELECT state, payment FROM orders") == ("paid", "payment-1")


def test_a_bank_that_stays_away_is_asked_five_times(ask: Callable[[str], tuple[Any, ...]]) -> None:
    (charge,) = run(place(fate="down")).sent

    ran = drain(charge)

    assert [attempt.retry_in for attempt in ran] == [10, 30, 90, 270, None]
    assert isinstance(ran[-1].outcome, DeadLettered)
    assert ran[-1].outcome.reason == "exhausted"
    assert ask("SELECT state, error FROM orders") == ("failed", "the bank of this card cannot be reached")


def test_a_replayed_payment_lets_the_order_go_on(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[[str], tuple[Any, ...]]
) -> None:
    (charge,) = run(place(fate="declined")).sent
    run(charge)
    monkeypatch.setattr(orders, "gateway", Gateway())  # the customer has called his bank

    assert steps(*go(charge)) == ["A1.charge", "A1.confirm", "A1.ship"]
    assert ask("SELECT state, error FROM orders") == ("shipped", None)


def test_a_step_of_an_unknown_order_is_dead_at_once() -> None:
    ran = run(orders.charge.message("nobody"))

    assert isinstance(ran.outcome, DeadLettered)
    assert ran.outcome.failure.text == "there is no order 'nobody'"


def test_steps_are_plain_functions_too(ask: Callable[[str], tuple[Any, ...]]) -> None:
    with recording() as sent:
        orders.validate("A1", {"tea": 1}, card("good"), "ada@example.com")
        orders.charge("A1")

    assert steps(*sent) == ["A1.charge", "A1.confirm"]
    assert ask("SELECT state FROM orders") == ("paid",)


def test_a_failing_transaction_leaves_the_step_undone() -> None:
    def crash() -> None:
        with orders.once("A1", "ship") as first:
            assert first
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crash()

    with orders.once("A1", "ship") as second:
        assert second
    with orders.once("A1", "ship") as third:
        assert third is None


@pytest.mark.parametrize("items", [{}, {"tea": 0}, {"tea": -1}])
def test_an_order_of_nothing_is_refused_before_it_is_sent(items: dict[str, int]) -> None:
    with pytest.raises(InvalidArguments, match="items"):
        orders.validate.message("A1", items, "card-1", "ada@example.com")


def test_reserving_what_nobody_sells_is_rejected() -> None:
    with transaction() as database, pytest.raises(Reject, match="1 × gold"):
        orders.reserve(database, "gold", 1)


class TestGateway:
    def test_a_seed_decides_the_fate_of_each_card(self) -> None:
        cards = [f"card-{n}" for n in range(1000)]
        fates = [Gateway(7).fate(card) for card in cards]

        assert fates == [Gateway(7).fate(card) for card in cards]
        assert fates != [Gateway(8).fate(card) for card in cards]
        assert {"good", "declined", "slow", "down"} == set(fates)

    def test_without_a_seed_all_cards_are_good(self) -> None:
        assert {Gateway().fate(f"card-{n}") for n in range(1000)} == {"good"}

    def test_one_key_is_one_payment(self) -> None:
        gateway = Gateway()

        assert gateway.charge("card-1", 450, "A1") == gateway.charge("card-1", 450, "A1")
        assert gateway.charge("card-1", 450, "A2") != gateway.charge("card-1", 450, "A1")

    def test_a_declined_card_stays_declined(self) -> None:
        gateway = Gateway(SEED)

        for _ in range(5):
            with pytest.raises(CardDeclined):
                gateway.charge(card("declined"), 450, "A1")
