"""The shop as ten tools. They run in the sandbox: the shop is `shop.db` in the workspace, payments are a socket."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Literal

from retail_checkout.database import connect
from retail_checkout.payments import BOX_SOCKET, SocketPayments
from retail_checkout.shop import Shop

from g4agent.tools import tool


@contextmanager
def _shop() -> Iterator[Shop]:
    with closing(connect("shop.db")) as connection:
        yield Shop(connection, SocketPayments(os.environ.get("SHOP_PAYMENTS", BOX_SOCKET)))


@tool(effect="pure")
def find_customer(email: str) -> dict[str, Any]:
    """Find a customer by email.

    Args:
        email: Email address.
    """
    with _shop() as shop:
        return shop.find_customer(email)


@tool(effect="pure")
def find_customer_by_name(name: str, zip_code: str) -> dict[str, Any]:
    """Find a customer by name and zip.

    Args:
        name: First and last name.
        zip_code: Five digits.
    """
    with _shop() as shop:
        return shop.find_customer_by_name(name, zip_code)


@tool(effect="pure")
def search_products(query: str, max_price: float | None = None) -> dict[str, Any]:
    """Search the catalogue.

    Args:
        query: Words of the product name.
        max_price: Highest price.
    """
    with _shop() as shop:
        return shop.search_products(query, max_price)


@tool(effect="pure")
def view_cart(customer_id: str) -> dict[str, Any]:
    """Show the cart.

    Args:
        customer_id: Customer id.
    """
    with _shop() as shop:
        return shop.view_cart(customer_id)


@tool(effect="idempotent")
def add_to_cart(customer_id: str, sku: str, quantity: int = 1) -> dict[str, Any]:
    """Put a product in the cart.

    Args:
        customer_id: Customer id.
        sku: Product sku.
        quantity: How many.
    """
    with _shop() as shop:
        return shop.add_to_cart(customer_id, sku, quantity)


@tool(effect="idempotent")
def apply_coupon(customer_id: str, code: str) -> dict[str, Any]:
    """Use a coupon for the cart.

    Args:
        customer_id: Customer id.
        code: Coupon code.
    """
    with _shop() as shop:
        return shop.apply_coupon(customer_id, code)


@tool(effect="once")
def checkout(
    customer_id: str, payment: Literal["card", "gift_card"], address: str, gift_card: str | None = None
) -> dict[str, Any]:
    """Order and pay the cart.

    Args:
        customer_id: Customer id.
        payment: How to pay.
        address: Delivery address.
        gift_card: Gift card number.
    """
    with _shop() as shop:
        return shop.checkout(customer_id, payment, address, gift_card)


@tool(effect="pure")
def get_order(order_id: str) -> dict[str, Any]:
    """Show an order.

    Args:
        order_id: Order id.
    """
    with _shop() as shop:
        return shop.get_order(order_id)


@tool(effect="once")
def cancel_order(order_id: str, reason: Literal["no longer needed", "ordered by mistake"]) -> dict[str, Any]:
    """Cancel a pending order.

    Args:
        order_id: Order id.
        reason: Why.
    """
    with _shop() as shop:
        return shop.cancel_order(order_id, reason)


@tool(effect="once")
def return_items(order_id: str, skus: list[str]) -> dict[str, Any]:
    """Return items of a delivered order.

    Args:
        order_id: Order id.
        skus: Skus to return.
    """
    with _shop() as shop:
        return shop.return_items(order_id, skus)


TOOLS = [
    find_customer,
    find_customer_by_name,
    search_products,
    view_cart,
    add_to_cart,
    apply_coupon,
    checkout,
    get_order,
    cancel_order,
    return_items,
]
