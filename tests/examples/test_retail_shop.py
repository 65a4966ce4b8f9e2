"""The shop's operations, one by one: shapes, sums and refusals."""

from __future__ import annotations

import pytest
from retail_checkout.database import connect
from retail_checkout.payments import Ledger
from retail_checkout.search import best_matches
from retail_checkout.seed import new_shop, seed_shop
from retail_checkout.shop import Shop, ShopError

LAMP, MUG = "BK204", "QZ318"


@pytest.fixture
def shop() -> Shop:
    """A seeded shop with one customer and two products whose every figure is known."""
    shop = new_shop(3)
    run = shop.connection.execute
    run(
        "INSERT INTO customers VALUES"
        " ('c1004', 'Ada Byron', 'ada@example.com', '5 Oak Street, Dover 90210', '90210', '4821', 'card-c1004-4821')"
    )
    run("INSERT INTO products VALUES (?, 'purple reading lamp', 1999, 4), (?, 'purple soup mug', 1250, 2)", (LAMP, MUG))
    run("INSERT INTO coupons VALUES ('TENTH10', 10, '2099-12-31'), ('GONE20', 20, '2020-01-31')")
    run("INSERT INTO gift_cards VALUES ('GC000001', 5000)")
    return shop


def stock(shop: Shop, sku: str) -> int:
    (left,) = shop.connection.execute("SELECT stock FROM products WHERE sku = ?", [sku]).fetchone()
    return int(left)


def balance(shop: Shop) -> int:
    (left,) = shop.connection.execute("SELECT balance FROM gift_cards WHERE number = 'GC000001'").fetchone()
    return int(left)


def buy(shop: Shop, quantity: int = 1) -> str:
    shop.add_to_cart("c1004", LAMP, quantity)
    shop.add_to_cart("c1004", MUG)
    return str(shop.checkout("c1004", "card", "5 Oak Street, Dover 90210")["order_id"])


def test_a_customer_is_found_by_email_or_by_name_and_zip(shop: Shop) -> None:
    """The model was trained on this shape; capitals must not hide a customer."""
    expected = {
        "customer_id": "c1004",
        "name": "Ada Byron",
        "address": "5 Oak Street, Dover 90210",
        "card": "ending 4821",
    }
    assert shop.find_customer("Ada@Example.com") == expected
    assert shop.find_customer_by_name("ada byron", "90210") == expected


def test_search_gives_the_best_match_first_and_respects_the_price(shop: Shop) -> None:
    """If the order or the cap failed, the agent would buy the wrong thing."""
    found = shop.search_products("purple lamps")["products"]
    assert found[0] == {"sku": LAMP, "name": "purple reading lamp", "price": 19.99, "stock": 4}
    assert len(found) <= 4
    assert [p["sku"] for p in shop.search_products("purple", 12.50)["products"]] == [MUG]
    assert shop.search_products("submarine") == {"products": []}


def test_search_ranks_by_words_then_by_price() -> None:
    """The ranking is part of the training data: a change of order would mislead the model."""
    prices = {"green desk lamp": 30, "red desk lamp": 20, "green desk": 90, "table fan": 5}
    assert best_matches("Green desk lamps", prices) == ["green desk lamp", "green desk", "red desk lamp"]
    assert best_matches("", prices) == []


def test_the_cart_holds_set_quantities_and_its_total_follows_the_coupon(shop: Shop) -> None:
    """A repeated add must not double the quantity, and the discount is rounded once, on the whole."""
    assert shop.view_cart("c1004") == {"items": [], "coupon": None, "total": 0.0}
    for _ in range(2):
        added = shop.add_to_cart("c1004", LAMP, 3)
        assert added == {"items": [{"sku": LAMP, "quantity": 3}], "total": 59.97}
    assert shop.apply_coupon("c1004", "TENTH10") == {"coupon": "TENTH10", "discount_percent": 10, "total": 53.97}
    assert shop.add_to_cart("c1004", LAMP, 0) == {"items": [], "total": 0.0}


def test_a_checkout_takes_stock_and_money_and_empties_the_cart(shop: Shop) -> None:
    """Order, payment, stock and cart have to change together."""
    shop.add_to_cart("c1004", LAMP, 2)
    bought = shop.checkout("c1004", "card", "1 New Road, Salem 11111")
    order_id = bought["order_id"]
    assert bought == {"order_id": order_id, "total": 39.98, "status": "pending", "payment": "card ending 4821"}
    assert shop.get_order(order_id) == {
        "order_id": order_id,
        "customer_id": "c1004",
        "status": "pending",
        "items": [{"sku": LAMP, "name": "purple reading lamp", "quantity": 2}],
        "total": 39.98,
        "address": "1 New Road, Salem 11111",
    }
    assert stock(shop, LAMP) == 2
    assert shop.view_cart("c1004")["items"] == []
    with pytest.raises(ShopError, match=f"cart is empty, last order {order_id}"):
        shop.checkout("c1004", "card", "1 New Road, Salem 11111")


def test_a_gift_card_pays_and_gets_its_refund(shop: Shop) -> None:
    """The refund must go where the money came from."""
    shop.add_to_cart("c1004", LAMP, 2)
    bought = shop.checkout("c1004", "gift_card", "5 Oak Street, Dover 90210", "GC000001")
    assert bought["payment"] == "gift card GC000001"
    assert balance(shop) == 5000 - 3998
    assert shop.cancel_order(bought["order_id"], "no longer needed")["refund"] == 39.98
    assert (balance(shop), stock(shop, LAMP)) == (5000, 4)


def test_returns_refund_what_was_paid_to_the_cent(shop: Shop) -> None:
    """With a coupon, the refunds of all lines must add up to the order's total, not to the list prices."""
    shop.apply_coupon("c1004", "TENTH10")
    order_id = buy(shop, quantity=3)
    shop.connection.execute("UPDATE orders SET status = 'delivered' WHERE id = ?", [order_id])
    first = shop.return_items(order_id, [MUG, MUG])
    second = shop.return_items(order_id, [LAMP])
    assert (first["status"], second["status"]) == ("partly returned", "returned")
    assert round(first["refund"] + second["refund"], 2) == shop.get_order(order_id)["total"] == 65.22
    assert (stock(shop, LAMP), stock(shop, MUG)) == (4, 2)


def test_a_declined_card_leaves_no_trace(shop: Shop) -> None:
    """What was reserved for the charge has to come back, and the cart must stay usable."""
    shop.connection.execute("UPDATE customers SET card_token = 'declined-1' WHERE id = 'c1004'")
    shop.add_to_cart("c1004", LAMP, 2)
    with pytest.raises(ShopError, match="payment declined"):
        shop.checkout("c1004", "card", "5 Oak Street, Dover 90210")
    assert stock(shop, LAMP) == 4
    assert shop.checkout("c1004", "gift_card", "5 Oak Street, Dover 90210", "GC000001")["status"] == "pending"


def test_a_refused_charge_leaves_no_trace_either() -> None:
    """A ledger older than the shop may know the cart's key; the cart must not stay locked for ever."""
    ledger = Ledger()
    shop = seed_shop(connect(":memory:"), 3, ledger)
    customer_id, address = shop.connection.execute("SELECT id, address FROM customers").fetchone()
    (sku, before) = shop.connection.execute("SELECT sku, stock FROM products WHERE stock > 0").fetchone()
    shop.add_to_cart(customer_id, sku)
    (cart_id,) = shop.connection.execute("SELECT id FROM carts WHERE state = 'open'").fetchone()
    ledger.charge(1, "card-other", f"cart-{cart_id}")
    shop.connection.execute("INSERT INTO gift_cards VALUES ('GC000001', 500000)")
    for method, number in (("card", None), ("gift_card", "GC000001")):
        with pytest.raises(ShopError, match="payment refused: key cart-"):
            shop.checkout(customer_id, method, address, number)  # type: ignore[arg-type]
        assert (stock(shop, sku), balance(shop)) == (before, 500000)
    assert shop.add_to_cart(customer_id, sku, 0)["items"] == []


@pytest.mark.parametrize(
    ("operation", "arguments", "message"),
    [
        ("find_customer", ["nobody@example.com"], "unknown customer"),
        ("find_customer_by_name", ["Ada Byron", "00000"], "unknown customer"),
        ("view_cart", ["c0000"], "unknown customer"),
        ("add_to_cart", ["c1004", "XX000"], "unknown sku"),
        ("add_to_cart", ["c1004", LAMP, 5], "out of stock: 4 left"),
        ("add_to_cart", ["c1004", LAMP, -1], "quantity must be 0 or more"),
        ("apply_coupon", ["c1004", "NOPE99"], "unknown coupon"),
        ("apply_coupon", ["c1004", "GONE20"], "coupon expired"),
        ("checkout", ["c1004", "card", "5 Oak Street"], "cart is empty"),
        ("checkout", ["c1004", "card", " "], "address needed"),
        ("get_order", ["W00000"], "unknown order"),
        ("cancel_order", ["W00000", "no longer needed"], "unknown order"),
        ("return_items", ["W00000", [LAMP]], "unknown order"),
    ],
)
def test_a_refusal_is_short_and_changes_nothing(
    shop: Shop, operation: str, arguments: list[object], message: str
) -> None:
    """The model reads these messages; and a refused operation that left something behind would be a leak."""
    before = shop.connection.serialize()
    with pytest.raises(ShopError, match=f"^{message}$"):
        getattr(shop, operation)(*arguments)
    assert shop.connection.serialize() == before or operation == "add_to_cart"
    assert shop.view_cart("c1004")["items"] == []


@pytest.mark.parametrize(
    ("payment", "card", "message"),
    [
        ("gift_card", None, "gift card number needed"),
        ("gift_card", "GC999999", "unknown gift card"),
        ("gift_card", "GC000001", "gift card has 50.00 left"),
    ],
)
def test_a_gift_card_that_cannot_pay_is_refused(shop: Shop, payment: str, card: str | None, message: str) -> None:
    """Stock was reserved in the same transaction: it must come back."""
    shop.add_to_cart("c1004", LAMP, 4)
    with pytest.raises(ShopError, match=message):
        shop.checkout("c1004", payment, "5 Oak Street", card)  # type: ignore[arg-type]
    assert stock(shop, LAMP) == 4


def test_stock_sold_meanwhile_is_noticed_at_checkout(shop: Shop) -> None:
    """Two carts may hold the last piece; only one may become an order."""
    shop.add_to_cart("c1004", MUG, 2)
    shop.connection.execute("UPDATE products SET stock = 1 WHERE sku = ?", [MUG])
    with pytest.raises(ShopError, match=f"{MUG} out of stock: 1 left"):
        shop.checkout("c1004", "card", "5 Oak Street")


def test_an_order_in_the_wrong_state_is_refused(shop: Shop) -> None:
    """A shipped order cannot be cancelled, a pending one not returned, nothing twice."""
    order_id = buy(shop)
    with pytest.raises(ShopError, match=r"^order is pending$"):
        shop.return_items(order_id, [LAMP])
    shop.connection.execute("UPDATE orders SET status = 'shipped' WHERE id = ?", [order_id])
    with pytest.raises(ShopError, match=r"^order is shipped$"):
        shop.cancel_order(order_id, "no longer needed")
    shop.connection.execute("UPDATE orders SET status = 'delivered' WHERE id = ?", [order_id])
    with pytest.raises(ShopError, match="no items given"):
        shop.return_items(order_id, [])
    with pytest.raises(ShopError, match="XX000 is not in the order"):
        shop.return_items(order_id, ["XX000"])
    shop.return_items(order_id, [LAMP])
    with pytest.raises(ShopError, match=f"{LAMP} is already returned"):
        shop.return_items(order_id, [LAMP])
