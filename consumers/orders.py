"""Orders: each step is a job of its own, and sends the next one.

    orders.validate ─► payments.charge ─► orders.confirm ─► shipping.ship
                                                └─────────► emails.receipt

    brokerjobs consume orders payments shipping emails
    brokerjobs publish orders.validate @order.json

with {"order_id": "A1", "items": {"tea": 2}, "card": "card-1", "email": "ada@example.com"} in that file.

Three queues, because they fail for different reasons: while the bank is away, payments pile up and back off in
theirs, and everything else goes on.

A job runs at least once. So each step changes the database in one transaction that also notes the step as done,
and then sends the next one. A repeat finds the note and changes nothing, but sends the next one again, under the
same id: the first try may have died in between. Nothing is lost, and nothing is done twice.

Environment: ORDERS_DATABASE (orders.db), ORDERS_GATEWAY_SEED (none: no payment fails), ORDERS_WAIT_FACTOR (1).
"""

from __future__ import annotations

import json
import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from pydantic import Field

from brokerjobs import Consumer, Context, Reject, Retry
from consumers import emails
from consumers._database import open_database, transaction
from consumers._gateway import CardDeclined, Gateway

# A bank that is away comes back in seconds or in minutes. The demo cannot wait for minutes.
FACTOR = float(os.environ.get("ORDERS_WAIT_FACTOR", "1"))
WAITS = [seconds * FACTOR for seconds in (10, 30, 90, 270)]

orders = Consumer("orders")
payments = Consumer("payments", retry=Retry(delays=WAITS), timeout="30s")
shipping = Consumer("shipping")

gateway = Gateway(int(seed) if (seed := os.environ.get("ORDERS_GATEWAY_SEED")) else None)

Items = Annotated[dict[str, Annotated[int, Field(gt=0)]], Field(min_length=1)]


@orders.job()
def validate(order_id: str, items: Items, card: str, email: emails.Address) -> None:
    """Take an order in and reserve its goods.

    `card` is the payment provider's token for a card: the number itself has no business in a queue.
    """
    with once(order_id, "validate") as database:
        if database:
            cents = sum(reserve(database, name, count) for name, count in items.items())
            database.execute(
                "REPLACE INTO orders (id, state, items, card, email, cents) VALUES (?, 'new', ?, ?, ?, ?)",
                (order_id, json.dumps(items), card, email, cents),
            )
    charge.options(id=job_id(order_id, "charge")).send(order_id)


@payments.job()
def charge(order_id: str) -> None:
    """Take the money."""
    order = look_up(order_id)
    try:
        # No transaction is open while a stranger makes us wait. The key makes his side idempotent too: when
        # his answer gets lost, the next attempt gets the answer, and the customer pays once.
        payment = gateway.charge(order["card"], order["cents"], key=job_id(order_id, "charge"))
    except CardDeclined as error:
        raise Reject(str(error)) from error  # four more attempts would change nothing
    with once(order_id, "charge") as database:
        if database:
            database.execute(
                "UPDATE orders SET state = 'paid', payment = ?, error = NULL WHERE id = ?",
                (payment, order_id),
            )
    confirm.options(id=job_id(order_id, "confirm")).send(order_id)


@orders.job()
def confirm(order_id: str) -> None:
    """Tell the customer and the warehouse."""
    order = look_up(order_id)
    with once(order_id, "confirm") as database:
        if database:
            database.execute("UPDATE orders SET state = 'confirmed', error = NULL WHERE id = ?", (order_id,))
    emails.receipt.options(id=job_id(order_id, "receipt")).send(
        order_id, order["email"], json.loads(order["items"]), order["cents"]
    )
    ship.options(id=job_id(order_id, "ship")).send(order_id)


@shipping.job()
def ship(order_id: str) -> None:
    """Hand the parcel over."""
    tracking = uuid.uuid5(uuid.NAMESPACE_URL, order_id).hex[:12].upper()
    with once(order_id, "ship") as database:
        if database:
            database.execute(
                "UPDATE orders SET state = 'shipped', tracking = ?, error = NULL WHERE id = ?",
                (tracking, order_id),
            )


@orders.on_exhausted
@payments.on_exhausted
@shipping.on_exhausted
def mark_failed(context: Context, error: BaseException) -> None:
    """The job goes to the dead letter queue: whoever looks at the order shall see why it stands still.

    Its goods stay reserved. Once the cause is gone, `brokerjobs dead replay payments` runs the step again, and the
    order goes on from there.
    """
    order_id = context.arguments["order_id"]
    with transaction() as database:
        database.execute(
            "INSERT INTO orders (id, state, error) VALUES (?, 'failed', ?)"
            " ON CONFLICT (id) DO UPDATE SET state = 'failed', error = excluded.error",
            (order_id, str(error)),
        )


# A worker that cannot open the database must not take jobs: a start-up hook that fails ends it.
for consumer in (orders, payments, shipping):
    consumer.on_startup(open_database)


def job_id(order_id: str, step: str) -> str:
    """The id of the job that does this step of this order, however often it is sent."""
    return f"{order_id}.{step}"


@contextmanager
def once(order_id: str, step: str) -> Iterator[sqlite3.Connection | None]:
    """A transaction for one step of one order; None when the step has been done before.

    The note and the change are committed together, and the note's key is unique: of two deliveries of the same
    job, even at the same moment, one finds the step undone.
    """
    with transaction() as database:
        noted = database.execute("INSERT OR IGNORE INTO steps VALUES (?)", (job_id(order_id, step),)).rowcount
        yield database if noted else None


def reserve(database: sqlite3.Connection, name: str, count: int) -> int:
    """Take goods from the shelf; gives their price in cents."""
    taken = database.execute(
        "UPDATE products SET stock = stock - ? WHERE name = ? AND stock >= ?", (count, name, count)
    ).rowcount
    if not taken:
        raise Reject(f"not in stock: {count} × {name}")  # and the transaction puts back what was taken before
    (cents,) = database.execute("SELECT cents FROM products WHERE name = ?", (name,)).fetchone()
    return int(cents) * count


def look_up(order_id: str) -> dict[str, Any]:
    """What the first step has written down."""
    with transaction() as database:
        database.row_factory = sqlite3.Row
        order = database.execute(
            "SELECT * FROM orders WHERE id = ? AND items IS NOT NULL", (order_id,)
        ).fetchone()
    if order is None:
        raise Reject(f"there is no order {order_id!r}")
    return dict(order)
