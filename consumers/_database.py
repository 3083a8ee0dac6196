"""The shop's database, in SQLite: ORDERS_DATABASE says where, `orders.db` by default."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

SCHEMA = """
CREATE TABLE IF NOT EXISTS products (name TEXT PRIMARY KEY, cents INTEGER NOT NULL, stock INTEGER NOT NULL);
INSERT OR IGNORE INTO products VALUES ('tea', 450, 100000), ('coffee', 690, 100000), ('cup', 1290, 100000);
CREATE TABLE IF NOT EXISTS orders (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL,  -- new, paid, confirmed, shipped; failed: its job is in a dead letter queue
    items TEXT, card TEXT, email TEXT, cents INTEGER, payment TEXT, tracking TEXT, error TEXT
);
CREATE TABLE IF NOT EXISTS steps (job_id TEXT PRIMARY KEY);  -- what has been done
"""


def open_database() -> None:
    """Make the tables where they are missing."""
    with closing(_connect()) as database:
        database.execute("PRAGMA journal_mode = WAL")  # readers and the writer do not wait for each other
        database.executescript(SCHEMA)


@contextmanager
def transaction() -> Iterator[sqlite3.Connection]:
    """All or nothing; on a connection of its own, since jobs run in several threads and processes."""
    with closing(_connect()) as database:
        database.execute("BEGIN IMMEDIATE")
        try:
            yield database
        except BaseException:
            database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")


def _connect() -> sqlite3.Connection:
    path = os.environ.get("ORDERS_DATABASE", "orders.db")
    return sqlite3.connect(path, timeout=10, isolation_level=None)  # waits 10 s for another's transaction
