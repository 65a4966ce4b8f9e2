"""No sequence of operations loses money or goods, even when the payment provider's answers get lost."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from retail_checkout.database import connect
from retail_checkout.payments import Ledger, PaymentsUnavailableError, Receipt
from retail_checkout.seed import Size, seed_shop
from retail_checkout.shop import Shop, ShopError

SMALL = Size(customers=2, products=12, coupons=2, gift_cards=2, orders=4)


class UnreliablePayments:
    """A ledger that, when told, fails before it moves the money or loses its answer afterwards."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.fault: str | None = None

    def charge(self, amount: int, source: str, key: str) -> Receipt:
        return self._faulty(lambda: self.ledger.charge(amount, source, key))

    def refund(self, payment_id: str, amount: int, key: str) -> Receipt:
        return self._faulty(lambda: self.ledger.refund(payment_id, amount, key))

    def _faulty(self, move: Any) -> Receipt:
        if self.fault == "before":
            raise PaymentsUnavailableError("down")
        receipt: Receipt = move()
        if self.fault == "after":
            raise PaymentsUnavailableError("answer lost")
        return receipt


class ShopMachine(RuleBasedStateMachine):
    """Random customers; `pending` are the operations whose payment failed in an unknown way."""

    @initialize(seed=st.integers(0, 20))
    def open_shop(self, seed: int) -> None:
        self.ledger = Ledger()
        self.payments = UnreliablePayments(self.ledger)
        self.shop: Shop = seed_shop(connect(":memory:"), seed, self.payments, size=SMALL)
        self.customers = [row[0] for row in self.query("SELECT id FROM customers ORDER BY id")]
        self.skus = [row[0] for row in self.query("SELECT sku FROM products ORDER BY sku")]
        self.coupons = [row[0] for row in self.query("SELECT code FROM coupons ORDER BY code")]
        self.cards = [row[0] for row in self.query("SELECT number FROM gift_cards ORDER BY number")]
        self.shop.connection.execute("UPDATE gift_cards SET balance = balance * 20 WHERE number = ?", [self.cards[0]])
        self.goods = self.count_goods()
        self.balance = self.count_balance()
        self.pending: dict[str, tuple[Any, ...]] = {}

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self.shop.connection.execute(statement)]

    def attempt(self, key: str, fault: str | None, operation: Any, *arguments: Any) -> None:
        self.payments.fault = fault
        try:
            operation(*arguments)
            self.pending.pop(key, None)
        except ShopError as refusal:
            if str(refusal) == "payments are down: try again":
                self.pending[key] = (operation, *arguments)
        finally:
            self.payments.fault = None

    @rule(who=st.integers(0, 1), what=st.integers(0, 4), quantity=st.integers(-1, 6))
    def add(self, who: int, what: int, quantity: int) -> None:
        self.attempt("", None, self.shop.add_to_cart, self.customers[who], self.skus[what], quantity)

    @rule(who=st.integers(0, 1), which=st.integers(0, 1))
    def coupon(self, who: int, which: int) -> None:
        self.attempt("", None, self.shop.apply_coupon, self.customers[who], self.coupons[which])

    @rule(
        who=st.integers(0, 1),
        what=st.integers(0, 4),
        card=st.sampled_from([None, 0, 1]),
        fault=st.sampled_from([None, None, "before", "after"]),
    )
    def checkout(self, who: int, what: int, card: int | None, fault: str | None) -> None:
        """Buys what is in the cart and, unless a checkout is under way, one thing more."""
        method, number = ("card", None) if card is None else ("gift_card", self.cards[card])
        customer = self.customers[who]
        self.attempt("", None, self.shop.add_to_cart, customer, self.skus[what])
        self.attempt(customer, fault, self.shop.checkout, customer, method, "1 Oak Street", number)

    @rule(who=st.integers(0, 1))
    def block_card(self, who: int) -> None:
        self.shop.connection.execute(
            "UPDATE customers SET card_token = 'declined-' || card WHERE id = ?", [self.customers[who]]
        )

    @rule(data=st.data(), fault=st.sampled_from([None, None, "before", "after"]))
    def cancel(self, data: st.DataObject, fault: str | None) -> None:
        order = self.draw_order(data, "status != 'delivered'")
        self.attempt(order, fault, self.shop.cancel_order, order, "no longer needed")

    @rule(data=st.data(), fault=st.sampled_from([None, None, "before", "after"]))
    def give_back(self, data: st.DataObject, fault: str | None) -> None:
        """Several products at once; where that was refused or interrupted, perhaps one of them alone."""
        order = self.draw_order(data, "status != 'pending'")
        skus = [sku for (sku,) in self.query(f"SELECT sku FROM order_items WHERE order_id = '{order}' ORDER BY sku")]
        chosen = data.draw(st.lists(st.sampled_from(skus), min_size=1, max_size=3))
        for part in (chosen, chosen[:1]):
            self.attempt(f"{order} {part}", fault, self.shop.return_items, order, part)

    def draw_order(self, data: st.DataObject, condition: str) -> str:
        orders = [row[0] for row in self.query(f"SELECT id FROM orders WHERE {condition} ORDER BY rowid")]
        return str(data.draw(st.sampled_from(orders)))

    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        waiting = [row[0] for row in self.query("SELECT id FROM orders WHERE status = 'pending' ORDER BY rowid")]
        if free := [order for order in waiting if order not in self.pending]:
            order = data.draw(st.sampled_from(free))
            self.shop.connection.execute("UPDATE orders SET status = 'delivered' WHERE id = ?", [order])

    @invariant()
    def goods_are_kept(self) -> None:
        assert self.count_goods() == self.goods
        assert self.count_balance() == self.balance

    @invariant()
    def orders_are_paid(self) -> None:
        unpaid = self.query(
            "SELECT orders.id FROM orders LEFT JOIN payments ON order_id = orders.id"
            " WHERE payments.amount IS NOT total"
            " OR (SELECT SUM(paid) FROM order_items WHERE order_id = orders.id) != total"
        )
        assert unpaid == []

    @invariant()
    def charges_belong_to_orders_or_to_checkouts_under_way(self) -> None:
        charged = {row[0] for row in self.ledger.connection.execute("SELECT key FROM charges")}
        known = {row[0] for row in self.query("SELECT key FROM payments")}
        under_way = {f"cart-{row[0]}" for row in self.query("SELECT id FROM carts WHERE state = 'paying'")}
        assert known <= charged <= known | under_way

    def teardown(self) -> None:
        """Repeats what was interrupted; then the ledger must agree with the orders to the cent."""
        if not hasattr(self, "pending"):
            return
        for key, (operation, *arguments) in list(self.pending.items()):
            self.attempt(key, None, operation, *arguments)
        (charged,) = self.ledger.connection.execute("SELECT COALESCE(SUM(amount), 0) FROM charges").fetchone()
        (refunded,) = self.ledger.connection.execute("SELECT COALESCE(SUM(amount), 0) FROM refunds").fetchone()
        ((kept,),) = self.query(
            "SELECT COALESCE(SUM(paid), 0) FROM order_items JOIN orders ON orders.id = order_id"
            " WHERE status != 'cancelled' AND NOT returned"
        )
        assert charged - refunded == kept

    def count_goods(self) -> dict[str, int]:
        """Pieces by sku: on the shelf, reserved, and with customers."""
        rows = self.query(
            "SELECT sku, stock FROM products"
            " UNION ALL SELECT sku, quantity FROM cart_items JOIN carts ON carts.id = cart_id WHERE state = 'paying'"
            " UNION ALL SELECT sku, quantity FROM order_items JOIN orders ON orders.id = order_id"
            " WHERE status != 'cancelled' AND NOT returned"
        )
        return {sku: sum(count for other, count in rows if other == sku) for sku, _ in rows}

    def count_balance(self) -> int:
        """Cents on gift cards, reserved from them, and spent from them."""
        (row,) = self.query(
            "SELECT (SELECT SUM(balance) FROM gift_cards)"
            " + (SELECT COALESCE(SUM(amount), 0) FROM carts WHERE state = 'paying' AND source LIKE 'GC%')"
            " + (SELECT COALESCE(SUM(amount), 0) FROM payments WHERE source LIKE 'GC%')"
            " - (SELECT COALESCE(SUM(refunds.amount), 0) FROM refunds JOIN payments ON payments.id = payment_id"
            "    WHERE source LIKE 'GC%')"
        )
        return int(row[0])


TestMoney = ShopMachine.TestCase
TestMoney.settings = settings(max_examples=100, stateful_step_count=25, suppress_health_check=[HealthCheck.too_slow])
