"""Makes shops: the same seed and words give the same shop, down to its receipts."""

from __future__ import annotations

import random
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase

from retail_checkout.database import connect, create_tables
from retail_checkout.payments import Ledger, Payments
from retail_checkout.shop import Shop


@dataclass(frozen=True, slots=True)
class Words:
    """What names are made of. Every tuple needs enough entries for unique people and products."""

    first_names: tuple[str, ...] = (
        *("Maria", "James", "Aisha", "Peter", "Yuki", "Sofia", "Omar", "Clara", "Ivan", "Nora", "Luis", "Emma"),
        *("Victor", "Priya", "Hugo", "Leila", "Daniel", "Ingrid", "Samuel", "Zoe"),
    )
    last_names: tuple[str, ...] = (
        *("Lopez", "Smith", "Khan", "Novak", "Tanaka", "Rossi", "Haddad", "Weber", "Petrov", "Olsen", "Garcia"),
        *("Brown", "Dubois", "Sharma", "Martin", "Silva", "Jansen", "Kowalski", "Moreau", "Adams"),
    )
    streets: tuple[str, ...] = (
        *("Oak Street", "Mill Lane", "Park Avenue", "Station Road", "Hill Street", "River Road", "Church Lane"),
        *("Garden Street", "King Street", "Lake View"),
    )
    towns: tuple[str, ...] = ("Dover", "Salem", "Clinton", "Ashland", "Milton", "Oxford", "Georgetown", "Arlington")
    colours: tuple[str, ...] = ("green", "red", "blue", "white", "black", "yellow", "grey", "brown")
    products: tuple[str, ...] = (
        *("desk lamp", "floor lamp", "coffee mug", "tea pot", "backpack", "water bottle", "notebook", "office chair"),
        *("wall clock", "picture frame", "wool blanket", "rain jacket", "bike helmet", "kitchen scale", "door mat"),
        *("phone case", "travel pillow", "garden hose", "tool box", "table fan"),
    )
    coupons: tuple[str, ...] = ("SPRING", "SUMMER", "AUTUMN", "WINTER", "HELLO", "SAVE", "THANKS", "FRIEND")


WORDS = Words()


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything a shop has."""

    customers: int = 12
    products: int = 40
    coupons: int = 4
    """Every second one has expired."""
    gift_cards: int = 4
    orders: int = 10
    """Past orders: pending, shipped, delivered and cancelled in turn; fewer if the shelves are too empty for them."""


SIZE = Size()


def seed_shop(
    connection: sqlite3.Connection, seed: int, payments: Payments, *, words: Words = WORDS, size: Size = SIZE
) -> Shop:
    """Fills an empty database. Past orders are real ones: placed, paid and cancelled through the shop's operations.

    Args:
        connection: An empty database, of a file or in memory.
        seed: Decides everything that is not given.
        payments: Where the past orders are charged.
        words: What people and products are called.
        size: How many of each to make.
    """
    rng = random.Random(seed)
    shop = Shop(connection, payments)
    create_tables(connection)
    with connection:
        connection.execute("BEGIN")
        _add_customers(connection, rng, words, size.customers)
        _add_products(connection, rng, words, size.products)
        _add_coupons(connection, rng, words, size.coupons)
        _add_gift_cards(connection, rng, size.gift_cards)
        connection.execute("INSERT INTO sqlite_sequence VALUES ('carts', ?)", [rng.randrange(90_000)])
    _add_orders(shop, rng, size.orders)
    return shop


def new_shop(seed: int, *, path: Path | str = ":memory:", words: Words = WORDS, size: Size = SIZE) -> Shop:
    """A seeded shop with a ledger of its own in memory, for data generation and tests."""
    return seed_shop(connect(path), seed, Ledger(), words=words, size=size)


def rebuild_ledger(shop: sqlite3.Connection, payments: Payments) -> None:
    """Tells a payment provider of everything that the shop has on record. Harmless where it knows already."""
    for amount, source, key in shop.execute("SELECT amount, source, key FROM payments"):
        payments.charge(amount, source, key)
    for payment_id, amount, key in shop.execute("SELECT payment_id, amount, key FROM refunds"):
        payments.refund(payment_id, amount, key)


def _add_customers(connection: sqlite3.Connection, rng: random.Random, words: Words, count: int) -> None:
    numbers = rng.sample(range(1000, 10_000), count)
    people = rng.sample(range(len(words.first_names) * len(words.last_names)), count)
    for number, person in zip(numbers, people, strict=True):
        first = words.first_names[person % len(words.first_names)]
        last = words.last_names[person // len(words.first_names)]
        zip_code, card = f"{rng.randrange(10_000, 100_000)}", f"{rng.randrange(10_000):04}"
        street, town = rng.choice(words.streets), rng.choice(words.towns)
        connection.execute(
            "INSERT INTO customers VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                f"c{number}",
                f"{first} {last}",
                f"{first}.{last}@example.{rng.choice(['com', 'org', 'net'])}".lower(),
                f"{rng.randrange(1, 100)} {street}, {town} {zip_code}",
                zip_code,
                card,
                f"card-c{number}-{card}",
            ),
        )


def _add_products(connection: sqlite3.Connection, rng: random.Random, words: Words, count: int) -> None:
    base_price = {name: rng.randrange(5, 90) for name in words.products}
    skus = rng.sample(range(26 * 26 * 900), count)
    for sku, kind in zip(skus, rng.sample(range(len(words.colours) * len(words.products)), count), strict=True):
        letters, digits = divmod(sku, 900)
        name = words.products[kind // len(words.colours)]
        price = 100 * (base_price[name] + rng.randrange(8)) + rng.choice([0, 25, 50, 90, 95, 99])
        connection.execute(
            "INSERT INTO products VALUES (?, ?, ?, ?)",
            (
                f"{ascii_uppercase[letters // 26]}{ascii_uppercase[letters % 26]}{100 + digits}",
                f"{words.colours[kind % len(words.colours)]} {name}",
                price,
                rng.choice([0, rng.randrange(1, 4), *[rng.randrange(4, 40)] * 6]),
            ),
        )


def _add_coupons(connection: sqlite3.Connection, rng: random.Random, words: Words, count: int) -> None:
    for index, word in enumerate(rng.sample(words.coupons, count)):
        percent = rng.choice([10, 15, 20, 25, 30])
        valid_until = f"2023-{rng.randrange(1, 13):02}-28" if index % 2 else "2099-12-31"
        connection.execute("INSERT INTO coupons VALUES (?, ?, ?)", (f"{word}{percent}", percent, valid_until))


def _add_gift_cards(connection: sqlite3.Connection, rng: random.Random, count: int) -> None:
    for number in rng.sample(range(100_000, 1_000_000), count):
        connection.execute(
            "INSERT INTO gift_cards VALUES (?, ?)", (f"GC{number}", rng.choice([1000, 2500, 5000, 10_000, 20_000]))
        )


def _add_orders(shop: Shop, rng: random.Random, count: int) -> None:
    customers = [dict(row) for row in shop.connection.execute("SELECT id, address FROM customers ORDER BY id")]
    for index in range(count):
        skus = [sku for (sku,) in shop.connection.execute("SELECT sku FROM products WHERE stock > 4 ORDER BY sku")]
        if not skus:
            return
        customer = rng.choice(customers)
        for sku in rng.sample(skus, min(len(skus), rng.randrange(1, 4))):
            shop.add_to_cart(customer["id"], sku, rng.randrange(1, 3))
        order_id = shop.checkout(customer["id"], "card", customer["address"])["order_id"]
        status = ("pending", "shipped", "delivered", "cancelled")[index % 4]
        if status == "cancelled":
            shop.cancel_order(order_id, "no longer needed")
        else:
            shop.connection.execute("UPDATE orders SET status = ? WHERE id = ?", [status, order_id])
