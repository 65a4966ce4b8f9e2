"""An operation killed at any statement, or run twice at once, ends as if it had run once."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from retail_checkout.database import connect
from retail_checkout.payments import Ledger, Receipt
from retail_checkout.seed import Size, new_shop, seed_shop
from retail_checkout.shop import Shop, ShopError
from retail_checkout.tasks import State, end_state

KILLED = 9


@dataclass(frozen=True)
class Case:
    """A shop on disk just before the operation."""

    seed: int
    prepare: Callable[[Shop], None]
    operation: Callable[[Shop], object]


def _fill_cart(shop: Shop) -> None:
    shop.connection.execute("UPDATE gift_cards SET balance = 500000")
    for (sku,) in shop.connection.execute("SELECT sku FROM products WHERE stock > 2 ORDER BY sku LIMIT 2").fetchall():
        shop.add_to_cart(_customer(shop), sku, 2)


def _customer(shop: Shop) -> str:
    return str(shop.connection.execute("SELECT id FROM customers ORDER BY id").fetchone()[0])


def _pay_by_card(shop: Shop) -> object:
    return shop.checkout(_customer(shop), "card", "1 Oak Street, Dover 90210")


def _pay_by_gift_card(shop: Shop) -> object:
    number = shop.connection.execute("SELECT number FROM gift_cards ORDER BY number").fetchone()[0]
    return shop.checkout(_customer(shop), "gift_card", "1 Oak Street, Dover 90210", number)


def _past_order(shop: Shop, number: int) -> str:
    """The first past order is pending at first, the third delivered."""
    found = shop.connection.execute("SELECT id FROM orders ORDER BY rowid LIMIT 1 OFFSET ?", [number - 1])
    return str(found.fetchone()[0])


def _cancel(shop: Shop) -> object:
    return shop.cancel_order(_past_order(shop, 1), "ordered by mistake")


def _return(shop: Shop) -> object:
    order_id = _past_order(shop, 3)
    items = shop.connection.execute("SELECT sku FROM order_items WHERE order_id = ?", [order_id])
    return shop.return_items(order_id, [sku for (sku,) in items.fetchall()])


CASES = {
    "checkout by card": Case(1, _fill_cart, _pay_by_card),
    "checkout by gift card": Case(1, _fill_cart, _pay_by_gift_card),
    "cancel": Case(2, lambda shop: None, _cancel),
    "return": Case(2, lambda shop: None, _return),
}


@pytest.mark.parametrize("name", CASES)
def test_a_crash_at_any_statement_is_mended_by_a_repeat(name: str, tmp_path: Path) -> None:
    """A charge without an order, an order charged twice, or goods reserved for ever would be lost money."""
    case = CASES[name]
    ledger_file, shop_file = tmp_path / "payments.db", tmp_path / "shop.db"
    with closing(Ledger(ledger_file)) as ledger, closing(connect(shop_file)) as connection:
        case.prepare(seed_shop(connection, case.seed, ledger, size=Size(customers=4, products=12, orders=4)))
    before = ledger_file.read_bytes(), shop_file.read_bytes()
    expected = _undisturbed(case, ledger_file, shop_file)
    for statement in range(1, 200):
        ledger_file.write_bytes(before[0])
        shop_file.write_bytes(before[1])
        died = _run_and_die(case, ledger_file, shop_file, statement)
        with closing(Ledger(ledger_file)) as ledger, closing(connect(shop_file)) as connection:
            with suppress(ShopError):  # where it had been done already: the cart is empty, the order is cancelled
                case.operation(Shop(connection, ledger))
            assert end_state(connection, ledger.connection) == expected, f"killed before statement {statement}"
        if not died:
            break
    assert statement > 10, "the operation was not killed at all"


def _undisturbed(case: Case, ledger_file: Path, shop_file: Path) -> State:
    with closing(Ledger(ledger_file)) as ledger, closing(connect(shop_file)) as connection:
        case.operation(Shop(connection, ledger))
        return end_state(connection, ledger.connection)


def _run_and_die(case: Case, ledger_file: Path, shop_file: Path, statement: int) -> bool:
    """Runs the operation in a child that dies before its n-th statement; False if it had fewer."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            countdown = iter(range(statement - 1))

            def count(text: str) -> None:
                if next(countdown, None) is None:
                    os._exit(KILLED)

            ledger, connection = Ledger(ledger_file), connect(shop_file)
            for database in (ledger.connection, connection):
                database.set_trace_callback(count)
            case.operation(Shop(connection, ledger))
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, KILLED)
    return code == KILLED


@dataclass
class Overtaken:
    """A ledger that answers late: before its first answer, someone else does the whole operation."""

    ledger: Ledger
    other: Callable[[], object] | None

    def charge(self, amount: int, source: str, key: str) -> Receipt:
        self._wait()
        return self.ledger.charge(amount, source, key)

    def refund(self, payment_id: str, amount: int, key: str) -> Receipt:
        self._wait()
        return self.ledger.refund(payment_id, amount, key)

    def _wait(self) -> None:
        other, self.other = self.other, None
        if other is not None:
            other()


@pytest.mark.parametrize("name", CASES)
def test_two_at_once_do_it_once(name: str, tmp_path: Path) -> None:
    """A tool call may be repeated while the first still waits for the provider; only one of them may count."""
    case = CASES[name]
    states = []
    for overtaken in (False, True):
        shop_file = tmp_path / f"shop-{overtaken}.db"
        with closing(Ledger()) as ledger, closing(connect(shop_file)) as mine, closing(connect(shop_file)) as theirs:
            case.prepare(seed_shop(mine, case.seed, ledger, size=Size(customers=4, products=12, orders=4)))
            other = Shop(theirs, ledger)
            payments = Overtaken(ledger, partial(case.operation, other) if overtaken else None)
            try:
                case.operation(Shop(mine, payments))
            except ShopError as refusal:
                assert overtaken and str(refusal) in ("order is cancelled", "order is returned")
            states.append(end_state(mine, ledger.connection))
    assert states[0] == states[1]


def test_a_repeat_after_a_lost_answer_names_the_order() -> None:
    """After a crash behind the commit, the model has to find out what its checkout became."""
    shop = new_shop(1)
    _fill_cart(shop)
    _pay_by_card(shop)
    with pytest.raises(ShopError, match=r"^cart is empty, last order W\d{5}$"):
        _pay_by_card(shop)
