"""What customers want, one builder per kind of task. A builder draws people and products from a seeded shop."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from retail_checkout.payments import DECLINED_PREFIX
from retail_checkout.shop import CancelReason, PaymentMethod, Shop

Row: TypeAlias = dict[str, Any]


def _nothing(shop: Shop) -> None:
    """Leaves the shop as it is."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A prompt and what follows from it."""

    prompt: str
    """What the customer says."""
    oracle: Callable[[Shop], object] = _nothing
    """Does the task through the shop's operations; by default the right thing is to change nothing."""
    answer: str = ""
    """Regular expression that the agent's last words must match, capitals aside."""
    prepare: Callable[[Shop], object] = _nothing
    """Changes the seeded shop before the task begins."""


Builder: TypeAlias = Callable[[Shop, random.Random], Plan]


def buy_one(shop: Shop, rng: random.Random) -> Plan:
    """One product, card, own address."""
    customer, product = _customer(shop, rng), _in_stock(shop, rng)
    prompt = f"I am {customer['email']}. Please order a {product['name']}, pay with my card, ship it to my address."
    return Plan(prompt, _purchase(customer, {product["sku"]: 1}))


def buy_several_of_one(shop: Shop, rng: random.Random) -> Plan:
    """A quantity."""
    customer, product = _customer(shop, rng), _in_stock(shop, rng)
    prompt = f"This is {customer['email']}. I want 3 of the {product['name']}. Card, my usual address."
    return Plan(prompt, _purchase(customer, {product["sku"]: 3}))


def buy_two_products(shop: Shop, rng: random.Random) -> Plan:
    """Two products in one order."""
    customer, (first, second) = _customer(shop, rng), rng.sample(_stocked(shop), 2)
    prompt = (
        f"My email is {customer['email']}. Order one {first['name']} and 2 of the {second['name']} "
        "with my card to my address."
    )
    return Plan(prompt, _purchase(customer, {first["sku"]: 1, second["sku"]: 2}))


def buy_below_a_price(shop: Shop, rng: random.Random) -> Plan:
    """The cap leaves exactly one product of its kind."""
    customer, cheapest = _customer(shop, rng), {}
    for product in sorted(_rows(shop, "SELECT * FROM products"), key=lambda row: (-row["price"], row["sku"])):
        cheapest[product["name"].split(" ", 1)[1]] = product
    kind, product = rng.choice([(kind, row) for kind, row in cheapest.items() if row["stock"] > 0])
    prompt = (
        f"I am {customer['email']}. Order a {kind} that costs at most {product['price'] / 100:.2f}. "
        "Pay by card, ship it to my address."
    )
    return Plan(prompt, _purchase(customer, {product["sku"]: 1}))


def buy_with_coupon(shop: Shop, rng: random.Random) -> Plan:
    """A coupon that holds."""
    customer, product, coupon = _customer(shop, rng), _in_stock(shop, rng), _coupon(shop, rng, valid=True)
    prompt = (
        f"I am {customer['email']}. One {product['name']} please, with coupon {coupon}. "
        "Pay with my card, ship to my address."
    )
    return Plan(prompt, _purchase(customer, {product["sku"]: 1}, coupon=coupon))


def buy_with_gift_card(shop: Shop, rng: random.Random) -> Plan:
    """Paid with a gift card that has enough on it."""
    customer, card = _customer(shop, rng), _gift_card(shop)
    product = _in_stock(shop, rng, max_price=card["balance"])
    prompt = f"I am {customer['email']}. Order a {product['name']} to my address, pay with gift card {card['number']}."
    return Plan(prompt, _purchase(customer, {product["sku"]: 1}, gift_card=card["number"]))


def buy_with_coupon_and_gift_card(shop: Shop, rng: random.Random) -> Plan:
    """Quantity, coupon and gift card together."""
    customer, card, coupon = _customer(shop, rng), _gift_card(shop), _coupon(shop, rng, valid=True)
    product = _in_stock(shop, rng, max_price=card["balance"] // 2)
    prompt = (
        f"This is {customer['email']}. 2 of the {product['name']}, coupon {coupon}, "
        f"gift card {card['number']}, to my address."
    )
    return Plan(prompt, _purchase(customer, {product["sku"]: 2}, coupon=coupon, gift_card=card["number"]))


def buy_to_a_new_address(shop: Shop, rng: random.Random) -> Plan:
    """Shipped elsewhere."""
    customer, product = _customer(shop, rng), _in_stock(shop, rng)
    address = f"{rng.randrange(1, 100)} Harbour Road, Newport {rng.randrange(10_000, 100_000)}"
    prompt = f"I am {customer['email']}. Order a {product['name']} with my card and ship it to {address}."
    return Plan(prompt, _purchase({**customer, "address": address}, {product["sku"]: 1}))


def buy_by_name_and_zip(shop: Shop, rng: random.Random) -> Plan:
    """The customer gives no email."""
    customer, product = _customer(shop, rng), _in_stock(shop, rng)
    prompt = (
        f"My name is {customer['name']}, zip {customer['zip']}. Order a {product['name']}, "
        "pay with my card, ship it to my address."
    )
    return Plan(prompt, _purchase(customer, {product["sku"]: 1}))


def expired_coupon_order_anyway(shop: Shop, rng: random.Random) -> Plan:
    """An expired coupon, and permission to go on without it."""
    customer, product, coupon = _customer(shop, rng), _in_stock(shop, rng), _coupon(shop, rng, valid=False)
    prompt = (
        f"I am {customer['email']}. Order a {product['name']} with coupon {coupon}; "
        "if it has expired, order without it. My card, my address."
    )
    return Plan(prompt, _purchase(customer, {product["sku"]: 1}), answer="expired|without")


def expired_coupon_order_nothing(shop: Shop, rng: random.Random) -> Plan:
    """An expired coupon, and no order without it."""
    customer, product, coupon = _customer(shop, rng), _in_stock(shop, rng), _coupon(shop, rng, valid=False)
    prompt = (
        f"I am {customer['email']}. Order a {product['name']} with coupon {coupon}; if it has expired, do not order. "
        "My card, my address."
    )
    return Plan(prompt, answer="expired")


def gift_card_too_small(shop: Shop, rng: random.Random) -> Plan:
    """A gift card with one unit left, and the card to fall back on."""
    customer, card = _customer(shop, rng), _gift_card(shop)
    product = _in_stock(shop, rng)
    prompt = (
        f"I am {customer['email']}. Order a {product['name']} to my address with gift card {card['number']}. "
        "If that is not enough, use my card."
    )

    def drain(shop: Shop) -> None:
        shop.connection.execute("UPDATE gift_cards SET balance = 100 WHERE number = ?", [card["number"]])

    return Plan(prompt, _purchase(customer, {product["sku"]: 1}), prepare=drain)


def declined_card(shop: Shop, rng: random.Random) -> Plan:
    """The bank declines the card: nothing is ordered, and the customer learns why."""
    customer, product = _customer(shop, rng), _in_stock(shop, rng)
    prompt = f"I am {customer['email']}. Order a {product['name']} with my card to my address."

    def block(shop: Shop) -> None:
        token = f"{DECLINED_PREFIX}-{customer['card']}"
        shop.connection.execute("UPDATE customers SET card_token = ? WHERE id = ?", [token, customer["id"]])

    return Plan(prompt, answer="declined", prepare=block)


def out_of_stock(shop: Shop, rng: random.Random) -> Plan:
    """Sold out, no substitute wanted."""
    customer, product = _customer(shop, rng), _in_stock(shop, rng)
    prompt = f"I am {customer['email']}. Order a {product['name']} with my card to my address, nothing else will do."

    def sell_out(shop: Shop) -> None:
        shop.connection.execute("UPDATE products SET stock = 0 WHERE sku = ?", [product["sku"]])

    return Plan(prompt, answer="stock|sold out|unavailable", prepare=sell_out)


def unknown_customer(shop: Shop, rng: random.Random) -> Plan:
    """Nobody of that email."""
    product = _in_stock(shop, rng)
    prompt = f"I am nobody{rng.randrange(1000)}@example.com. Order a {product['name']} with my card to my address."
    return Plan(prompt, answer="unknown|not find|no customer|not found|no account")


def order_status(shop: Shop, rng: random.Random) -> Plan:
    """A question only."""
    order = _order(shop, rng, "pending", "shipped", "delivered", "cancelled")
    return Plan(f"What is the status of order {order['id']}?", answer=order["status"])


def cancel_pending(shop: Shop, rng: random.Random) -> Plan:
    """A cancellation that is possible."""
    order = _order(shop, rng, "pending")
    prompt = f"Please cancel order {order['id']}, I ordered it by mistake."
    return Plan(prompt, _cancellation(order, "ordered by mistake"), answer="cancel")


def cancel_shipped(shop: Shop, rng: random.Random) -> Plan:
    """A cancellation that comes too late."""
    order = _order(shop, rng, "shipped")
    return Plan(f"Cancel order {order['id']}, I no longer need it.", answer="shipped")


def return_one_item(shop: Shop, rng: random.Random) -> Plan:
    """Part of a delivered order goes back."""
    order = _order(shop, rng, "delivered")
    item = rng.choice(_items(shop, order))
    prompt = f"I want to return the {item['name']} of order {order['id']}."
    return Plan(prompt, lambda shop: shop.return_items(order["id"], [item["sku"]]), answer="return|refund")


def return_everything(shop: Shop, rng: random.Random) -> Plan:
    """All of a delivered order goes back."""
    order = _order(shop, rng, "delivered")
    skus = [item["sku"] for item in _items(shop, order)]
    prompt = f"Return all items of order {order['id']} please."
    return Plan(prompt, lambda shop: shop.return_items(order["id"], skus), answer="return|refund")


def small_talk(shop: Shop, rng: random.Random) -> Plan:
    """No tool is needed."""
    return Plan("Hello! What can you do for me?", answer="order|buy|product|help")


PLANS: dict[str, Builder] = {
    builder.__name__: builder
    for builder in (
        *(buy_one, buy_several_of_one, buy_two_products, buy_below_a_price, buy_with_coupon, buy_with_gift_card),
        *(buy_with_coupon_and_gift_card, buy_to_a_new_address, buy_by_name_and_zip),
        *(expired_coupon_order_anyway, expired_coupon_order_nothing, gift_card_too_small, declined_card),
        *(out_of_stock, unknown_customer, order_status, cancel_pending, cancel_shipped),
        *(return_one_item, return_everything, small_talk),
    )
}


def _purchase(
    customer: Row, items: dict[str, int], *, coupon: str | None = None, gift_card: str | None = None
) -> Callable[[Shop], object]:
    method: PaymentMethod = "card" if gift_card is None else "gift_card"

    def buy(shop: Shop) -> object:
        for sku, quantity in items.items():
            shop.add_to_cart(customer["id"], sku, quantity)
        if coupon is not None:
            shop.apply_coupon(customer["id"], coupon)
        return shop.checkout(customer["id"], method, customer["address"], gift_card)

    return buy


def _cancellation(order: Row, reason: CancelReason) -> Callable[[Shop], object]:
    return lambda shop: shop.cancel_order(order["id"], reason)


def _rows(shop: Shop, query: str, *values: object) -> list[Row]:
    return [dict(row) for row in shop.connection.execute(query, values)]


def _customer(shop: Shop, rng: random.Random) -> Row:
    return rng.choice(_rows(shop, "SELECT * FROM customers ORDER BY id"))


def _stocked(shop: Shop, max_price: int = 10**9) -> list[Row]:
    return _rows(shop, "SELECT * FROM products WHERE stock >= 3 AND price <= ? ORDER BY sku", max_price)


def _in_stock(shop: Shop, rng: random.Random, max_price: int = 10**9) -> Row:
    return rng.choice(_stocked(shop, max_price))


def _coupon(shop: Shop, rng: random.Random, *, valid: bool) -> str:
    sign = ">=" if valid else "<"
    return str(
        rng.choice(_rows(shop, f"SELECT code FROM coupons WHERE valid_until {sign} date() ORDER BY code"))["code"]
    )


def _gift_card(shop: Shop) -> Row:
    """The one with the most on it."""
    return _rows(shop, "SELECT * FROM gift_cards ORDER BY balance DESC, number")[0]


def _order(shop: Shop, rng: random.Random, *statuses: str) -> Row:
    marks = ", ".join("?" for _ in statuses)
    return rng.choice(_rows(shop, f"SELECT * FROM orders WHERE status IN ({marks}) ORDER BY id", *statuses))


def _items(shop: Shop, order: Row) -> list[Row]:
    query = "SELECT sku, name FROM order_items JOIN products USING (sku) WHERE order_id = ? ORDER BY sku"
    return _rows(shop, query, order["id"])
