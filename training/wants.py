"""What the customers of the synthetic retail dialogues want, and how they say it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from retail_checkout.payments import DECLINED_PREFIX
from retail_checkout.seed import Size, Words
from retail_checkout.shop import Shop

from training.words import CITIES, COLOURS, COUPONS, FIRST, LAST, PRODUCTS, STREETS, Split, invented, part, syllables

KINDS = (
    *(
        "buy",
        "buy",
        "buy",
        "buy",
        "price",
        "two",
        "coupon",
        "gift",
        "coupon_gift",
        "address",
        "expired",
        "expired_stop",
    ),
    *(
        "gift_short",
        "declined",
        "sold_out",
        "unknown",
        "status",
        "cancel",
        "cancel",
        "return_one",
        "return_one",
        "return_one",
        "return_all",
        "talk",
    ),
)
SIZE = Size(customers=8, products=30, coupons=4, gift_cards=4, orders=8)


@dataclass(frozen=True, slots=True)
class Want:
    """What a customer wants. For purchases: `items` maps sku to quantity, `queries` sku to the words said."""

    kind: str
    prompt: str
    find: tuple[str, dict[str, Any]] | None = None
    items: dict[str, int] = field(default_factory=dict)
    queries: dict[str, dict[str, Any]] = field(default_factory=dict)
    coupon: str | None = None
    gift_card: str | None = None
    address: str | None = None
    order_id: str | None = None
    reason: str | None = None
    names: tuple[str, ...] = ()


def words(rng: random.Random, split: Split) -> Words:
    """People and products of a shop; half of them are invented."""

    def mixed(known: tuple[str, ...], count: int, invent: bool = True) -> tuple[str, ...]:
        fitting = part(known, split)
        chosen = rng.sample(fitting, min(count, len(fitting)))
        if invent:
            chosen += [invented(rng, split).capitalize() for _ in range(count)]
        return tuple(dict.fromkeys(chosen))

    coupons = [*part(COUPONS, "train"), *(syllables(rng, 2, 2).upper()[:6] for _ in range(8))]
    streets = [*part(STREETS, "train"), *(f"{syllables(rng).capitalize()} Street" for _ in range(4))]
    return Words(
        first_names=mixed(FIRST, 12),
        last_names=mixed(LAST, 12),
        streets=tuple(streets),
        towns=mixed(CITIES, 8),
        colours=tuple(rng.sample(COLOURS, 7)),
        products=mixed(PRODUCTS, 12, False)
        + tuple(f"{invented(rng, split)} {noun}" for noun in ("lamp", "mug", "jacket", "box", "chair", "clock"))
        + tuple(f"{invented(rng, split)} {invented(rng, split)}" for _ in range(3)),
        coupons=tuple(rng.sample(coupons, 6)),
    )


def _rows(shop: Shop, query: str, *values: object) -> list[dict[str, Any]]:
    return [dict(row) for row in shop.connection.execute(query, values)]


def _pick(rng: random.Random, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return rng.choice(rows)


def _some(rng: random.Random, name: str, quantity: int) -> str:
    if quantity == 1:
        return rng.choice([f"a {name}", f"one {name}", f"the {name}", f"1 {name}"])
    return rng.choice([f"{quantity} of the {name}", f"{quantity} {name}", f"{quantity} pieces of the {name}"])


def _who(rng: random.Random, customer: dict[str, Any]) -> tuple[str, tuple[str, dict[str, Any]]]:
    if rng.random() < 0.25:
        name, zip_code = customer["name"], customer["zip"]
        said = rng.choice(
            [
                f"My name is {name}, zip {zip_code}.",
                f"I am {name} from {zip_code}.",
                f"{name} here, zip code {zip_code}.",
                f"This is {name}, my zip is {zip_code}.",
            ]
        )
        return said, ("find_customer_by_name", {"name": name, "zip_code": zip_code})
    email = customer["email"]
    said = rng.choice(
        [
            f"I am {email}.",
            f"I am {email}.",
            f"This is {email}.",
            f"My email is {email}.",
            f"My account is {email}.",
            f"You know me as {email}.",
            f"Hi, {email} here.",
        ]
    )
    return said, ("find_customer", {"email": email})


def want(rng: random.Random, shop: Shop, kind: str | None = None) -> Want:
    """Draws a customer and a wish from a shop; may change the shop so that the wish meets trouble."""
    kind = kind or rng.choice(KINDS)
    if kind in ("status", "cancel", "return_one", "return_all", "talk"):
        return _order_want(rng, shop, kind)
    run = shop.connection.execute
    customer = _pick(rng, _rows(shop, "SELECT * FROM customers"))
    stocked = _rows(shop, "SELECT * FROM products WHERE stock >= 3")
    chosen = rng.sample(stocked, 2 if kind == "two" else 1)
    product, coupon, card, address = chosen[0], None, None, None
    items = {row["sku"]: rng.choice([1, 1, 1, 2, 3]) for row in chosen}
    queries: dict[str, dict[str, Any]] = {row["sku"]: {"query": row["name"]} for row in chosen}
    who, find = _who(rng, customer)
    some = " and ".join(_some(rng, row["name"], items[row["sku"]]) for row in chosen)
    extra = ""
    if kind in ("coupon", "coupon_gift", "expired", "expired_stop"):
        sign = "<" if kind.startswith("expired") else ">="
        coupon = _pick(rng, _rows(shop, f"SELECT code FROM coupons WHERE valid_until {sign} date()"))["code"]
        extra = rng.choice([f" with coupon {coupon}", f", coupon {coupon}", f" using the coupon {coupon}"])
        if kind == "expired":
            extra += rng.choice(
                [
                    "; if it has expired, order without it",
                    ". If it is expired, go on without it",
                    "; if it does not work, order anyway",
                ]
            )
        elif kind == "expired_stop":
            extra += rng.choice(
                [
                    "; if it has expired, do not order",
                    ". If it is expired, order nothing",
                    "; if it does not work, do not buy it",
                ]
            )
    if kind in ("gift", "coupon_gift", "gift_short"):
        card = rng.choice(_rows(shop, "SELECT number FROM gift_cards"))["number"]
        run("UPDATE gift_cards SET balance = ? WHERE number = ?", [100 if kind == "gift_short" else 900_000, card])
    if kind == "price":
        name = product["name"].split(" ", 1)[1]
        same = _rows(shop, "SELECT * FROM products WHERE name LIKE ? ORDER BY price, sku", f"% {name}")
        product = next((row for row in same if row["stock"] >= 3), product)
        cap = product["price"] / 100
        items, queries = {product["sku"]: 1}, {product["sku"]: {"query": name, "max_price": cap}}
        some = f"a {name} " + rng.choice(
            [f"that costs at most {cap:.2f}", f"for at most {cap:.2f}", f"under {cap:.2f}", f"for {cap:.2f} or less"]
        )
        others = [row["sku"] for row in same if row["sku"] != product["sku"] and row["price"] <= product["price"]]
        run(f"UPDATE products SET stock = 0 WHERE sku IN ({','.join('?' * len(others))})", others)
    if kind == "sold_out":
        run("UPDATE products SET stock = 0 WHERE sku = ?", [product["sku"]])
        extra = rng.choice(["", ", nothing else will do", "; only that one"])
    if kind == "declined":
        token = f"{DECLINED_PREFIX}-{customer['card']}"
        run("UPDATE customers SET card_token = ? WHERE id = ?", [token, customer["id"]])
    if kind == "unknown":
        email = (
            f"{syllables(rng)}{rng.randrange(1000)}@example.com"
            if rng.random() < 0.5
            else f"nobody{rng.randrange(1000)}@example.com"
        )
        who, find = rng.choice([f"I am {email}.", f"My email is {email}."]), ("find_customer", {"email": email})
    if card is not None:
        pay = rng.choice([f"pay with gift card {card}", f"gift card {card}", f"use gift card {card}"])
        if kind == "gift_short":
            pay += rng.choice([". If that is not enough, use my card", "; if it is too small, take my card"])
    else:
        pay = rng.choice(["pay with my card", "pay by card", "card", "with my card", "I pay by card"])
    if kind == "address" or (kind in ("buy", "two") and rng.random() < 0.15):
        town = rng.choice([*CITIES, syllables(rng).capitalize()])
        street = rng.choice([*STREETS, f"{syllables(rng).capitalize()} Road"])
        address = f"{rng.randrange(1, 100)} {street}, {town} {rng.randrange(10_000, 100_000)}"
        ship = rng.choice([f"ship it to {address}", f"send it to {address}", f"deliver to {address}"])
    else:
        ship = rng.choice(
            [
                "ship it to my address",
                "to my address",
                "my usual address",
                "ship to my address",
                "send it to my address",
                "my address",
            ]
        )
    order = rng.choice(
        [
            "Please order",
            "Order",
            "I want",
            "I would like",
            "I want to buy",
            "Buy",
            "Please buy",
            "Can you order",
            "I need",
            "Get me",
        ]
    )
    tail = [pay, ship]
    if kind != "gift_short":
        rng.shuffle(tail)
    else:
        tail = [ship, pay]
    end = rng.choice([", ", ". ", ". "]).join([some + extra, rng.choice([", ", " and ", "; ", ". "]).join(tail)])
    prompt = f"{who} {order} {end}."
    return Want(kind, prompt, find, items, queries, coupon, card, address)


def _order_want(rng: random.Random, shop: Shop, kind: str) -> Want:
    if kind == "talk":
        return Want(
            kind,
            rng.choice(
                [
                    "Hello! What can you do for me?",
                    "Hi, what can you do?",
                    "Hello, who are you?",
                    "Can you help me?",
                    "Good morning!",
                    "What can I do here?",
                ]
            ),
        )
    wanted = (
        "delivered" if kind.startswith("return") else "pending" if kind == "cancel" and rng.random() < 0.6 else None
    )
    orders = _rows(shop, "SELECT * FROM orders")
    order = _pick(rng, [row for row in orders if row["status"] == wanted] or orders)
    number = order["id"]
    if kind == "status":
        return Want(
            kind,
            rng.choice(
                [
                    f"What is the status of order {number}?",
                    f"Where is my order {number}?",
                    f"Has {number} been shipped?",
                    f"How is order {number} doing?",
                ]
            ),
            order_id=number,
        )
    if kind == "cancel":
        reason = rng.choice(["no longer needed", "ordered by mistake"])
        why = {
            "no longer needed": ["I no longer need it", "I do not need it any more", "it is no longer needed"],
            "ordered by mistake": ["I ordered it by mistake", "it was a mistake", "I bought it by mistake"],
        }[reason]
        ask = rng.choice(
            [f"Please cancel order {number}, ", f"Cancel order {number}, ", f"I want to cancel {number}, "]
        )
        return Want(kind, ask + rng.choice(why) + ".", order_id=number, reason=reason)
    items = _rows(
        shop, "SELECT sku, name FROM order_items JOIN products USING (sku) WHERE order_id = ? ORDER BY sku", number
    )
    if kind == "return_all":
        return Want(
            kind,
            rng.choice(
                [
                    f"Return all items of order {number} please.",
                    f"I want to return order {number}.",
                    f"Please take back everything of order {number}.",
                ]
            ),
            order_id=number,
        )
    name = rng.choice(items)["name"]
    return Want(
        kind,
        rng.choice(
            [
                f"I want to return the {name} of order {number}.",
                f"Please take back the {name} from order {number}.",
                f"Return the {name} of {number}.",
            ]
        ),
        order_id=number,
        names=(name,),
    )
