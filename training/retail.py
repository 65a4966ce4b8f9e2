"""Retail dialogues: an oracle serves a customer of the example's own shop, so every result is a real one."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from retail_checkout.agent import POLICY
from retail_checkout.database import connect
from retail_checkout.payments import Ledger
from retail_checkout.seed import seed_shop
from retail_checkout.shop import Shop, ShopError
from retail_checkout.tasks import State, end_state
from retail_checkout.tools import TOOLS

from training.dialogue import Dialogue, declare
from training.wants import SIZE, Want, want, words
from training.words import Split

Step = tuple[str, str, dict[str, Any]]
"""A thought, a tool's name, its arguments."""


def serve(wish: Want) -> Iterator[Step | str]:
    """The oracle: yields calls, is sent their results, and ends with what it says."""
    if wish.kind == "talk":
        yield "I can help you order products, check orders, cancel them or return items."
        return
    if wish.order_id is not None:
        yield from _serve_order(wish)
        return
    assert wish.find is not None
    name, arguments = wish.find
    customer = yield ("Find the customer.", name, arguments)
    if "error" in customer:
        yield f"I can not find your account: {customer['error']}."
        return
    who = customer["customer_id"]
    for sku, quantity in wish.items.items():
        found = yield ("Search the product.", "search_products", wish.queries[sku])
        product = next((row for row in found["products"] if row["sku"] == sku), None)
        if product is None or product["stock"] < quantity:
            yield "Sorry, that is out of stock."
            return
        count = {"quantity": quantity} if quantity > 1 else {}
        added = yield (
            f"It is {sku}, put {quantity} in the cart.",
            "add_to_cart",
            {"customer_id": who, "sku": sku, **count},
        )
        if "error" in added:
            yield f"Sorry, {added['error']}."
            return
    without = ""
    if wish.coupon is not None:
        applied = yield ("Use the coupon.", "apply_coupon", {"customer_id": who, "code": wish.coupon})
        if "error" in applied:
            if wish.kind != "expired":
                yield f"I did not order: {applied['error']}."
                return
            without = f" without the coupon: {applied['error']}"
    address = wish.address or customer["address"]
    pay: dict[str, Any] = {"customer_id": who, "payment": "card", "address": address}
    if wish.gift_card is not None:
        first = {**pay, "payment": "gift_card", "gift_card": wish.gift_card}
        done = yield ("Pay with the gift card.", "checkout", first)
        if "error" in done and wish.kind == "gift_short":
            done = yield ("The gift card is too small, use the card.", "checkout", pay)
    else:
        done = yield ("Pay by card.", "checkout", pay)
    if "error" in done:
        yield f"I could not order: {done['error']}."
    else:
        yield f"Order {done['order_id']} is placed{without}. The total is {done['total']}."


def _serve_order(wish: Want) -> Iterator[Step | str]:
    number = wish.order_id
    if wish.kind == "cancel":
        done = yield ("Cancel the order.", "cancel_order", {"order_id": number, "reason": wish.reason})
        if "error" in done:
            yield f"Order {number} can not be cancelled: {done['error']}."
        else:
            yield f"Order {number} is cancelled. The refund is {done['refund']}."
        return
    order = yield ("Look at the order.", "get_order", {"order_id": number})
    if wish.kind == "status":
        yield f"Order {number} is {order['status']}."
        return
    skus = [item["sku"] for item in order["items"] if not wish.names or item["name"] in wish.names]
    done = yield (f"Return {', '.join(skus)}.", "return_items", {"order_id": number, "skus": skus})
    if "error" in done:
        yield f"I could not return it: {done['error']}."
    else:
        yield f"The return is done. The refund is {done['refund']}."


def execute(shop: Shop, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """A call on the shop, answered as the example's tools answer."""
    try:
        result: dict[str, Any] = getattr(shop, name)(**arguments)
        return result
    except ShopError as no:
        return {"error": str(no)}


def shop_for(rng: random.Random, split: Split) -> Shop:
    """A small random shop. A seed whose past orders sell a product out before they are done is passed over."""
    while True:
        try:
            return seed_shop(connect(":memory:"), rng.randrange(10**9), Ledger(), words=words(rng, split), size=SIZE)
        except ShopError:
            continue


@dataclass(frozen=True, slots=True)
class Case:
    """A task with an end state: two equal shops, one for the model and one for the oracle."""

    wish: Want
    database: bytes
    charges: bytes

    def shop(self) -> Shop:
        """The shop as it is when the customer comes."""
        connection, ledger = connect(":memory:"), Ledger()
        connection.deserialize(self.database)
        ledger.connection.deserialize(self.charges)
        return Shop(connection, ledger)

    def passed(self, shop: Shop, answer: str) -> bool:
        """Whether a served shop is in the oracle's end state and what the oracle's answer tells is told."""
        right = self.shop()
        talk = Dialogue("", [], False)
        play(talk, right, self.wish)
        told = talk.pieces[-2][0].removesuffix("<turn|>")
        facts = re.findall(r"expired|declined|stock|unknown|shipped|delivered|pending|cancelled", told)
        return bool(answer) and _state(shop) == _state(right) and all(fact in answer for fact in facts)


def _state(shop: Shop) -> State:
    payments: Any = shop._payments
    return end_state(shop.connection, payments.connection)


def case(rng: random.Random, split: Split) -> Case:
    """A random task."""
    shop = shop_for(rng, split)
    wish = want(rng, shop)
    payments: Any = shop._payments
    return Case(wish, shop.connection.serialize(), payments.connection.serialize())


def tasks(split: Split, n: int, seed: int) -> list[Case]:
    """Tasks with a checkable end state, always the same for a seed."""
    rng = random.Random(f"{split} {seed}")
    return [case(rng, split) for _ in range(n)]


def play(talk: Dialogue, shop: Shop, wish: Want) -> None:
    """One user turn, served by the oracle."""
    talk.user(wish.prompt)
    steps = serve(wish)
    step = next(steps)
    while not isinstance(step, str):
        thought, name, arguments = step
        talk.call(thought, (name, arguments))
        result = execute(shop, name, arguments)
        talk.results((name, result))
        step = steps.send(result)  # type: ignore[attr-defined]
    talk.final("Tell the customer." if wish.kind != "talk" else "No tool is needed.", step)


def dialogue(rng: random.Random, split: Split, shop: Shop | None = None, turns: int = 1) -> Dialogue:
    """Some customers of one shop, one after the other, all ten tools declared; with thinking on, one customer."""
    shop = shop or shop_for(rng, split)
    thinking = rng.random() < 0.3
    talk = Dialogue(POLICY, declare(TOOLS), thinking)
    for _ in range(1 if thinking else turns):
        play(
            talk,
            shop,
            want(rng, shop, "return_one" if rng.random() < 0.1 else "sold_out" if rng.random() < 0.05 else None),
        )
    return talk
