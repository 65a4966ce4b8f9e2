"""The shop's tables. Money is in integer cents; ids have the formats that the tools show."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCHEMA = """
CREATE TABLE customers (
    id TEXT PRIMARY KEY,                 -- c1234
    name TEXT NOT NULL COLLATE NOCASE,
    email TEXT NOT NULL UNIQUE COLLATE NOCASE,
    address TEXT NOT NULL,
    zip TEXT NOT NULL,
    card TEXT NOT NULL,                  -- last four digits
    card_token TEXT NOT NULL,            -- what the payment provider charges
    UNIQUE (name, zip)
);
CREATE TABLE products (
    sku TEXT PRIMARY KEY,                -- BK204
    name TEXT NOT NULL UNIQUE,
    price INTEGER NOT NULL CHECK (price >= 100), -- so that no share of a discounted total rounds to nothing
    stock INTEGER NOT NULL CHECK (stock >= 0)
);
CREATE TABLE coupons (
    code TEXT PRIMARY KEY,               -- SPRING20
    percent INTEGER NOT NULL CHECK (percent BETWEEN 1 AND 90),
    valid_until TEXT NOT NULL            -- last day, ISO 8601
);
CREATE TABLE gift_cards (
    number TEXT PRIMARY KEY,             -- GC123456
    balance INTEGER NOT NULL CHECK (balance >= 0)
);
CREATE TABLE carts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    customer_id TEXT NOT NULL REFERENCES customers (id),
    coupon TEXT REFERENCES coupons (code),
    state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'paying', 'ordered')),
    amount INTEGER,                      -- what is being charged, and where: fixed from 'paying' on
    source TEXT
);
CREATE UNIQUE INDEX one_cart_per_customer ON carts (customer_id) WHERE state != 'ordered';
CREATE TABLE cart_items (
    cart_id INTEGER NOT NULL REFERENCES carts (id),
    sku TEXT NOT NULL REFERENCES products (sku),
    quantity INTEGER NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (cart_id, sku)
);
CREATE TABLE orders (
    id TEXT PRIMARY KEY,                 -- W12345
    customer_id TEXT NOT NULL REFERENCES customers (id),
    cart_id INTEGER NOT NULL UNIQUE REFERENCES carts (id),
    status TEXT NOT NULL CHECK (
        status IN ('pending', 'shipped', 'delivered', 'cancelled', 'partly returned', 'returned')
    ),
    total INTEGER NOT NULL CHECK (total > 0),
    address TEXT NOT NULL,
    cancel_reason TEXT
);
CREATE TABLE order_items (
    order_id TEXT NOT NULL REFERENCES orders (id),
    sku TEXT NOT NULL REFERENCES products (sku),
    quantity INTEGER NOT NULL CHECK (quantity > 0),
    paid INTEGER NOT NULL CHECK (paid > 0), -- the line's share of the total, after the coupon
    returned INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (order_id, sku)
);
CREATE TABLE payments (
    id TEXT PRIMARY KEY,
    order_id TEXT NOT NULL UNIQUE REFERENCES orders (id),
    key TEXT NOT NULL UNIQUE,
    source TEXT NOT NULL,                -- a card token or a gift card number
    amount INTEGER NOT NULL CHECK (amount > 0)
);
CREATE TABLE refunds (
    id TEXT PRIMARY KEY,
    payment_id TEXT NOT NULL REFERENCES payments (id),
    key TEXT NOT NULL UNIQUE,
    amount INTEGER NOT NULL CHECK (amount > 0)
);
"""


def connect(path: Path | str) -> sqlite3.Connection:
    """Opens a shop database with the settings that `Shop` relies on."""
    connection = sqlite3.connect(path, timeout=10.0)
    prepare(connection)
    return connection


def prepare(connection: sqlite3.Connection) -> None:
    """Rows by column name, foreign keys enforced, transactions begun by hand."""
    connection.isolation_level = None
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")


def create_tables(connection: sqlite3.Connection) -> None:
    """Makes the empty shop."""
    connection.executescript(SCHEMA)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Everything in the block or nothing; other writers wait."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
