"""Whether a headless run left the shop as it should: for `--expect python:FILE:FUNCTION`."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing

from g4agent.headless.report import RunReport


def one_more_order(report: RunReport, files: Mapping[str, bytes]) -> None:
    """The order that the answer names has been placed and paid."""
    with closing(sqlite3.connect(":memory:")) as shop:
        shop.deserialize(files["shop.db"])
        paid = "SELECT orders.id, status, amount FROM orders JOIN payments ON order_id = orders.id"
        number, status, amount = shop.execute(f"{paid} ORDER BY orders.rowid DESC").fetchone()
    assert number in report.answer, f"the answer does not name the last order, {number}"
    assert status == "pending" and amount > 0, f"order {number} is {status}, {amount} was paid"


def a_cancelled_order(report: RunReport, files: Mapping[str, bytes]) -> None:
    """An order was cancelled as ordered by mistake."""
    with closing(sqlite3.connect(":memory:")) as shop:
        shop.deserialize(files["shop.db"])
        reasons = [reason for (reason,) in shop.execute("SELECT cancel_reason FROM orders WHERE status = 'cancelled'")]
    assert "ordered by mistake" in reasons, f"reasons of cancelled orders: {reasons}"
