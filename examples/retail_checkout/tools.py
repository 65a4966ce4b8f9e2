"""The shop as ten tools. They run in the sandbox: the shop is `shop.db` in the workspace, payments are a socket."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing

from g4agent import tool
from retail_checkout.database import connect
from retail_checkout.payments import BOX_SOCKET, SocketPayments
from retail_checkout.shop import CancelReason, PaymentMethod, Record, Shop, ShopError


def _ask(operation: Callable[[Shop], Record]) -> Record:
    """One operation on the shop of this workspace. A "no" of the shop is an answer too, not a failure of the tool."""
    with closing(connect("shop.db")) as connection:
        try:
            return operation(Shop(connection, SocketPayments(os.environ.get("SHOP_PAYMENTS", BOX_SOCKET))))
        except ShopError as no:
            return {"error": str(no)}


def unfinished(key: str) -> None:
    """What an interrupted checkout, cancellation or return came to: nothing here, so it may run again.

    The shop was rolled back with the workspace, and the payment provider knows every charge and refund by a key that
    is made from the cart or the order: it books each of them once.
    """


@tool(effect="pure")
def find_customer(email: str) -> Record:
    """Find a customer by email.

    Args:
        email: Email address.
    """
    return _ask(lambda shop: shop.find_customer(email))


@tool(effect="pure")
def find_customer_by_name(name: str, zip_code: str) -> Record:
    """Find a customer by name and zip.

    Args:
        name: First and last name.
        zip_code: Five digits.
    """
    return _ask(lambda shop: shop.find_customer_by_name(name, zip_code))


@tool(effect="pure")
def search_products(query: str, max_price: float | None = None) -> Record:
    """Search the catalogue.

    Args:
        query: Words of the product name.
        max_price: Highest price.
    """
    return _ask(lambda shop: shop.search_products(query, max_price))


@tool(effect="pure")
def view_cart(customer_id: str) -> Record:
    """Show the cart.

    Args:
        customer_id: Customer id.
    """
    return _ask(lambda shop: shop.view_cart(customer_id))


@tool(effect="idempotent")
def add_to_cart(customer_id: str, sku: str, quantity: int = 1) -> Record:
    """Put a product in the cart.

    Args:
        customer_id: Customer id.
        sku: Product sku.
        quantity: How many.
    """
    return _ask(lambda shop: shop.add_to_cart(customer_id, sku, quantity))


@tool(effect="idempotent")
def apply_coupon(customer_id: str, code: str) -> Record:
    """Use a coupon for the cart.

    Args:
        customer_id: Customer id.
        code: Coupon code.
    """
    return _ask(lambda shop: shop.apply_coupon(customer_id, code))


@tool(effect="once", reconcile=unfinished)
def checkout(customer_id: str, payment: PaymentMethod, address: str, gift_card: str | None = None) -> Record:
    """Order and pay the cart.

    Args:
        customer_id: Customer id.
        payment: How to pay.
        address: Delivery address.
        gift_card: Gift card number.
    """
    return _ask(lambda shop: shop.checkout(customer_id, payment, address, gift_card))


@tool(effect="pure")
def get_order(order_id: str) -> Record:
    """Show an order.

    Args:
        order_id: Order id.
    """
    return _ask(lambda shop: shop.get_order(order_id))


@tool(effect="once", reconcile=unfinished)
def cancel_order(order_id: str, reason: CancelReason) -> Record:
    """Cancel a pending order.

    Args:
        order_id: Order id.
        reason: Why.
    """
    return _ask(lambda shop: shop.cancel_order(order_id, reason))


@tool(effect="once", reconcile=unfinished)
def return_items(order_id: str, skus: list[str]) -> Record:
    """Return items of a delivered order.

    Args:
        order_id: Order id.
        skus: Skus to return.
    """
    return _ask(lambda shop: shop.return_items(order_id, skus))


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
