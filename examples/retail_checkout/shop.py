"""What can be done in the shop. Each operation takes and returns plain JSON and raises `ShopError` for a "no".

Buying moves money at a provider outside this database, so a checkout has three parts, and may die between any two:

    reserve   stock and gift card balance are taken, amount and source are fixed; the cart is `paying`   (transaction)
    charge    by the key `cart-<id>`, which never charges twice
    order     the order, its payment, the end of the cart                                                (transaction)

A repeat finds the `paying` cart and finishes what was begun. Refunds go the other way round: refund by key, then one
transaction that checks the order's state again and records the refund.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, TypeAlias

from retail_checkout.database import prepare, transaction
from retail_checkout.payments import PaymentDeclinedError, PaymentError, Payments, PaymentsUnavailableError, Receipt
from retail_checkout.search import best_matches

Record: TypeAlias = dict[str, Any]
"""A JSON object; prices and totals in it are floats with two decimals."""

PaymentMethod = Literal["card", "gift_card"]
CancelReason = Literal["no longer needed", "ordered by mistake"]


class ShopError(Exception):
    """The shop says no; the message is short and meant for the model."""


@dataclass(frozen=True, slots=True)
class Line:
    """A product in a cart."""

    sku: str
    quantity: int
    price: int
    stock: int


class Shop:
    """The operations over one database.

    Args:
        connection: A database with the tables of `database.create_tables`.
        payments: Where money is charged and refunded.
    """

    def __init__(self, connection: sqlite3.Connection, payments: Payments) -> None:
        prepare(connection)
        self.connection = connection
        self._payments = payments

    def find_customer(self, email: str) -> Record:
        """The customer with this e-mail address."""
        return self._customer_record("SELECT * FROM customers WHERE email = ?", email.strip())

    def find_customer_by_name(self, name: str, zip_code: str) -> Record:
        """The customer of this name; capitals do not matter."""
        return self._customer_record("SELECT * FROM customers WHERE name = ? AND zip = ?", name.strip(), zip_code)

    def search_products(self, query: str, max_price: float | None = None) -> Record:
        """At most four products whose names share words with the query, best match first."""
        rows = self._rows("SELECT sku, name, price, stock FROM products")
        affordable = [row for row in rows if max_price is None or row["price"] <= _cents(max_price)]
        names = best_matches(query, {row["name"]: row["price"] for row in affordable})
        found = {row["name"]: row for row in affordable}
        return {"products": [{**dict(found[name]), "price": _amount(found[name]["price"])} for name in names]}

    def view_cart(self, customer_id: str) -> Record:
        """What is in the customer's cart, and its total after the coupon."""
        self._customer(customer_id)
        return self._cart_record(self._cart(customer_id))

    def add_to_cart(self, customer_id: str, sku: str, quantity: int = 1) -> Record:
        """Sets how many of a product are in the cart; 0 takes it out."""
        with transaction(self.connection):
            cart = self._open_cart(customer_id)
            product = self._row("SELECT stock FROM products WHERE sku = ?", sku)
            if product is None:
                raise ShopError("unknown sku")
            if quantity < 0:
                raise ShopError("quantity must be 0 or more")
            if quantity > product["stock"]:
                raise ShopError(f"out of stock: {product['stock']} left")
            self._run("DELETE FROM cart_items WHERE cart_id = ? AND sku = ?", cart["id"], sku)
            if quantity:
                self._run("INSERT INTO cart_items VALUES (?, ?, ?)", cart["id"], sku, quantity)
            record = self._cart_record(cart)
        return {"items": record["items"], "total": record["total"]}

    def apply_coupon(self, customer_id: str, code: str) -> Record:
        """Puts a coupon on the cart, in place of the one before."""
        with transaction(self.connection):
            cart = self._open_cart(customer_id)
            coupon = self._row("SELECT percent, valid_until FROM coupons WHERE code = ?", code)
            if coupon is None:
                raise ShopError("unknown coupon")
            if coupon["valid_until"] < date.today().isoformat():
                raise ShopError("coupon expired")
            self._run("UPDATE carts SET coupon = ? WHERE id = ?", code, cart["id"])
            total = self._cart_record(self._cart(customer_id))["total"]
        return {"coupon": code, "discount_percent": coupon["percent"], "total": total}

    def checkout(self, customer_id: str, payment: PaymentMethod, address: str, gift_card: str | None = None) -> Record:
        """Orders and pays the cart. Safe to repeat: a cart is charged once and becomes one order."""
        if not address.strip():
            raise ShopError("address needed")
        with transaction(self.connection):
            cart = self._reserve(customer_id, payment, gift_card)
        try:
            receipt = self._payments.charge(cart["amount"], cart["source"], f"cart-{cart['id']}")
        except PaymentError as error:
            if not isinstance(error, PaymentsUnavailableError):  # a clear no: nothing was charged
                with transaction(self.connection):
                    self._release(cart["id"])
            raise _payment_failure(error) from error
        with transaction(self.connection):
            order = self._row("SELECT * FROM orders WHERE cart_id = ?", cart["id"])
            if order is None:
                order = self._place_order(cart, receipt, address.strip())
        return {
            "order_id": order["id"],
            "total": _amount(order["total"]),
            "status": order["status"],
            "payment": self._payment_label(customer_id, cart["source"]),
        }

    def get_order(self, order_id: str) -> Record:
        """An order with its items."""
        order = self._order(order_id)
        items = self._rows(
            "SELECT sku, name, quantity FROM order_items JOIN products USING (sku) WHERE order_id = ? ORDER BY sku",
            order_id,
        )
        return {
            "order_id": order_id,
            "customer_id": order["customer_id"],
            "status": order["status"],
            "items": [dict(item) for item in items],
            "total": _amount(order["total"]),
            "address": order["address"],
        }

    def cancel_order(self, order_id: str, reason: CancelReason) -> Record:
        """Cancels a pending order and refunds all of it."""
        order = self._order(order_id, "pending")
        refund = self._refund(order_id, order["total"], f"cancel-{order_id}")
        with transaction(self.connection):
            self._order(order_id, "pending")
            self._run("UPDATE orders SET status = 'cancelled', cancel_reason = ? WHERE id = ?", reason, order_id)
            self._restock(order_id, [item["sku"] for item in self._items(order_id)])
            self._record_refund(order_id, refund, f"cancel-{order_id}")
        return {"order_id": order_id, "status": "cancelled", "refund": _amount(refund.amount)}

    def return_items(self, order_id: str, skus: list[str]) -> Record:
        """Takes back products of a delivered order and refunds what was paid for them.

        Each product has a refund key of its own, so that a repeat with other products refunds none of them twice.
        """
        items = self._returnable(order_id, skus)
        amounts = {f"return-{order_id}-{item['sku']}": item["paid"] for item in items}
        refunds = {key: self._refund(order_id, paid, key) for key, paid in amounts.items()}
        with transaction(self.connection):
            items = self._returnable(order_id, skus)
            for item in items:
                self._run("UPDATE order_items SET returned = 1 WHERE order_id = ? AND sku = ?", order_id, item["sku"])
            self._restock(order_id, [item["sku"] for item in items])
            for key, refund in refunds.items():
                self._record_refund(order_id, refund, key)
            kept = [item for item in self._items(order_id) if not item["returned"]]
            status = "partly returned" if kept else "returned"
            self._run("UPDATE orders SET status = ? WHERE id = ?", status, order_id)
        total = sum(refund.amount for refund in refunds.values())
        return {"order_id": order_id, "status": status, "refund": _amount(total)}

    # --- checkout, step by step; each runs inside the caller's transaction -------------------------------------------

    def _reserve(self, customer_id: str, payment: PaymentMethod, gift_card: str | None) -> sqlite3.Row:
        """Takes what the order needs and fixes its payment; a cart that is already `paying` stays as it is."""
        customer = self._customer(customer_id)
        cart = self._cart(customer_id)
        if cart is not None and cart["state"] == "paying":
            return cart
        lines = [] if cart is None else self._lines(cart["id"])
        if cart is None or not lines:
            raise ShopError(self._empty_cart(customer_id))
        for line in lines:
            if line.quantity > line.stock:
                raise ShopError(f"{line.sku} out of stock: {line.stock} left")
            self._run("UPDATE products SET stock = stock - ? WHERE sku = ?", line.quantity, line.sku)
        amount = self._total(cart, lines)
        if payment == "gift_card":
            self._take_balance(gift_card, amount)
        source = gift_card if payment == "gift_card" else customer["card_token"]
        self._run("UPDATE carts SET state = 'paying', amount = ?, source = ? WHERE id = ?", amount, source, cart["id"])
        paying = self._cart(customer_id)
        assert paying is not None
        return paying

    def _empty_cart(self, customer_id: str) -> str:
        """Names the newest order too: that is what a repeat after a lost answer is looking for."""
        order = self._row("SELECT id FROM orders WHERE customer_id = ? ORDER BY cart_id DESC", customer_id)
        return "cart is empty" if order is None else f"cart is empty, last order {order['id']}"

    def _take_balance(self, gift_card: str | None, amount: int) -> None:
        if gift_card is None:
            raise ShopError("gift card number needed")
        card = self._row("SELECT balance FROM gift_cards WHERE number = ?", gift_card)
        if card is None:
            raise ShopError("unknown gift card")
        if card["balance"] < amount:
            raise ShopError(f"gift card has {_amount(card['balance']):.2f} left")
        self._add_balance(gift_card, -amount)

    def _release(self, cart_id: int) -> None:
        """Gives back what a declined checkout reserved."""
        cart = self._row("SELECT * FROM carts WHERE id = ? AND state = 'paying'", cart_id)
        if cart is None:
            return
        for line in self._lines(cart_id):
            self._run("UPDATE products SET stock = stock + ? WHERE sku = ?", line.quantity, line.sku)
        self._add_balance(cart["source"], cart["amount"])
        self._run("UPDATE carts SET state = 'open', amount = NULL, source = NULL WHERE id = ?", cart_id)

    def _place_order(self, cart: sqlite3.Row, receipt: Receipt, address: str) -> sqlite3.Row:
        order_id = _order_id(cart["id"])
        self._run(
            "INSERT INTO orders (id, customer_id, cart_id, status, total, address) VALUES (?, ?, ?, ?, ?, ?)",
            *(order_id, cart["customer_id"], cart["id"], "pending", cart["amount"], address),
        )
        lines = self._lines(cart["id"])
        shares = _shares(cart["amount"], [line.price * line.quantity for line in lines])
        for line, paid in zip(lines, shares, strict=True):
            self._run(
                "INSERT INTO order_items (order_id, sku, quantity, paid) VALUES (?, ?, ?, ?)",
                *(order_id, line.sku, line.quantity, paid),
            )
        self._run(
            "INSERT INTO payments (id, order_id, key, source, amount) VALUES (?, ?, ?, ?, ?)",
            *(receipt.id, order_id, f"cart-{cart['id']}", cart["source"], receipt.amount),
        )
        self._run("UPDATE carts SET state = 'ordered' WHERE id = ?", cart["id"])
        return self._order(order_id)

    # --- refunds ------------------------------------------------------------------------------------------------------

    def _refund(self, order_id: str, amount: int, key: str) -> Receipt:
        payment = self._payment(order_id)
        try:
            return self._payments.refund(payment["id"], amount, key)
        except PaymentError as error:
            raise _payment_failure(error) from error

    def _record_refund(self, order_id: str, refund: Receipt, key: str) -> None:
        payment = self._payment(order_id)
        self._run("INSERT INTO refunds VALUES (?, ?, ?, ?)", refund.id, payment["id"], key, refund.amount)
        self._add_balance(payment["source"], refund.amount)

    def _returnable(self, order_id: str, skus: list[str]) -> list[sqlite3.Row]:
        self._order(order_id, "delivered", "partly returned")
        items = {item["sku"]: item for item in self._items(order_id)}
        if not skus:
            raise ShopError("no items given")
        for sku in skus:
            if sku not in items:
                raise ShopError(f"{sku} is not in the order")
            if items[sku]["returned"]:
                raise ShopError(f"{sku} is already returned")
        return [items[sku] for sku in dict.fromkeys(skus)]

    def _restock(self, order_id: str, skus: list[str]) -> None:
        for item in self._items(order_id):
            if item["sku"] in skus:
                self._run("UPDATE products SET stock = stock + ? WHERE sku = ?", item["quantity"], item["sku"])

    def _add_balance(self, source: str, amount: int) -> None:
        """Changes a gift card's balance; a card token has none and matches no row."""
        self._run("UPDATE gift_cards SET balance = balance + ? WHERE number = ?", amount, source)

    # --- rows ---------------------------------------------------------------------------------------------------------

    def _run(self, statement: str, *values: object) -> None:
        self.connection.execute(statement, values)

    def _row(self, query: str, *values: object) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self.connection.execute(query, values).fetchone()
        return row

    def _rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        return self.connection.execute(query, values).fetchall()

    def _customer(self, customer_id: str) -> sqlite3.Row:
        customer = self._row("SELECT * FROM customers WHERE id = ?", customer_id)
        if customer is None:
            raise ShopError("unknown customer")
        return customer

    def _customer_record(self, query: str, *values: object) -> Record:
        customer = self._row(query, *values)
        if customer is None:
            raise ShopError("unknown customer")
        shown = {"name": customer["name"], "address": customer["address"], "card": f"ending {customer['card']}"}
        return {"customer_id": customer["id"], **shown}

    def _cart(self, customer_id: str) -> sqlite3.Row | None:
        return self._row("SELECT * FROM carts WHERE customer_id = ? AND state != 'ordered'", customer_id)

    def _open_cart(self, customer_id: str) -> sqlite3.Row:
        """The cart that may be changed, made when there is none."""
        self._customer(customer_id)
        if self._cart(customer_id) is None:
            self._run("INSERT INTO carts (customer_id) VALUES (?)", customer_id)
        cart = self._cart(customer_id)
        assert cart is not None
        if cart["state"] == "paying":
            raise ShopError("checkout unfinished: check out again")
        return cart

    def _lines(self, cart_id: int) -> list[Line]:
        rows = self._rows(
            "SELECT sku, quantity, price, stock FROM cart_items JOIN products USING (sku)"
            " WHERE cart_id = ? ORDER BY sku",
            cart_id,
        )
        return [Line(**dict(row)) for row in rows]

    def _total(self, cart: sqlite3.Row, lines: list[Line]) -> int:
        coupon = self._row("SELECT percent FROM coupons WHERE code = ?", cart["coupon"])
        percent = 0 if coupon is None else coupon["percent"]
        full = sum(line.price * line.quantity for line in lines)
        return full - (full * percent + 50) // 100

    def _cart_record(self, cart: sqlite3.Row | None) -> Record:
        lines = [] if cart is None else self._lines(cart["id"])
        return {
            "items": [{"sku": line.sku, "quantity": line.quantity} for line in lines],
            "coupon": None if cart is None else cart["coupon"],
            "total": 0.0 if cart is None else _amount(self._total(cart, lines)),
        }

    def _order(self, order_id: str, *statuses: str) -> sqlite3.Row:
        """The order, which must have one of `statuses` where any are given."""
        order = self._row("SELECT * FROM orders WHERE id = ?", order_id)
        if order is None:
            raise ShopError("unknown order")
        if statuses and order["status"] not in statuses:
            raise ShopError(f"order is {order['status']}")
        return order

    def _items(self, order_id: str) -> list[sqlite3.Row]:
        return self._rows("SELECT * FROM order_items WHERE order_id = ? ORDER BY sku", order_id)

    def _payment(self, order_id: str) -> sqlite3.Row:
        payment = self._row("SELECT * FROM payments WHERE order_id = ?", order_id)
        assert payment is not None, f"order {order_id} has no payment"
        return payment

    def _payment_label(self, customer_id: str, source: str) -> str:
        customer = self._customer(customer_id)
        return f"card ending {customer['card']}" if source == customer["card_token"] else f"gift card {source}"


def _order_id(cart_id: int) -> str:
    """Scatters orders over W10000 to W99999, so that an id cannot be guessed from the last one."""
    return f"W{10_000 + cart_id * 48_271 % 90_000}"


def _shares(total: int, weights: list[int]) -> list[int]:
    """Splits a total in proportion to the weights, to the cent."""
    whole, given, seen, shares = sum(weights), 0, 0, []
    for weight in weights:
        seen += weight
        shares.append(total * seen // whole - given)
        given += shares[-1]
    return shares


def _payment_failure(error: PaymentError) -> ShopError:
    match error:
        case PaymentsUnavailableError():
            return ShopError("payments are down: try again")
        case PaymentDeclinedError():
            return ShopError(f"payment declined: {error}")
        case _:
            return ShopError(f"payment refused: {error}")


def _cents(amount: float) -> int:
    return round(amount * 100)


def _amount(cents: int) -> float:
    return cents / 100
