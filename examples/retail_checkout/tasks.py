"""Tasks with an end state that can be checked.

A task is a seeded shop, a prompt, and an oracle that does it right. A run passes when it leaves the shop and the
payment ledger as the oracle does (carts apart: filling one and leaving it harms nobody) and says what has to be said.
Comparing end states instead of steps lets an agent find its own way, as in τ-bench (arXiv:2406.12045).
"""

from __future__ import annotations

import random
import re
import sqlite3
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass

from retail_checkout.database import connect
from retail_checkout.payments import Ledger
from retail_checkout.plans import PLANS, Plan
from retail_checkout.seed import seed_shop
from retail_checkout.shop import Shop

State = dict[str, Counter[Hashable]]
"""What counts in an end state: rows by table, without the ids that depend on the order of steps."""


@dataclass(frozen=True, slots=True)
class Task:
    """One thing a customer wants. `kind` names a builder in `plans.PLANS`."""

    kind: str
    seed: int

    @property
    def name(self) -> str:
        """`kind-seed`."""
        return f"{self.kind}-{self.seed}"

    def build(self) -> Plan:
        """The prompt, the oracle and the words that the answer needs, drawn from the seeded shop."""
        shop = seed_shop(connect(":memory:"), self.seed, Ledger())
        return PLANS[self.kind](shop, random.Random(self.name))

    def start(self, ledger: Ledger) -> Shop:
        """The shop in which the task begins; the ledger gets the past orders' payments."""
        shop = seed_shop(connect(":memory:"), self.seed, ledger)
        self.build().prepare(shop)
        return shop

    def workspace(self, seed: int) -> dict[str, bytes]:
        """The task's workspace for an agent, whatever the session's seed is."""
        return {"shop.db": self.start(Ledger()).connection.serialize()}


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a run did the task, and if not, why."""

    passed: bool
    why: str = ""


TASKS = tuple(Task(kind, seed) for seed, kind in enumerate(PLANS, start=1))
"""One task of each kind."""


def check(task: Task, shop: sqlite3.Connection, ledger: sqlite3.Connection, answer: str) -> Judgement:
    """Judges a finished run.

    Args:
        task: What was to be done.
        shop: The shop's database after the run.
        ledger: The payment provider's database after the run.
        answer: What the agent said in the end.
    """
    plan, oracle_ledger = task.build(), Ledger()
    oracle_shop = task.start(oracle_ledger)
    plan.oracle(oracle_shop)
    expected, found = end_state(oracle_shop.connection, oracle_ledger.connection), end_state(shop, ledger)
    problems = [
        *(f"{table} lacks {row}" for table in expected for row in expected[table] - found[table]),
        *(f"{table} has {row}" for table in expected for row in found[table] - expected[table]),
    ]
    if not re.search(plan.answer, answer, re.IGNORECASE):
        problems.append(f"the answer does not mention {plan.answer!r}")
    return Judgement(not problems, "; ".join(problems))


def end_state(shop: sqlite3.Connection, ledger: sqlite3.Connection) -> State:
    """Orders with their items and payment, refunds, stock and gift cards of a shop; movements in its ledger."""
    orders: Counter[Hashable] = Counter()
    for order_id, *order, address in shop.execute(
        "SELECT orders.id, customer_id, status, total, cancel_reason, source, amount, address"
        " FROM orders LEFT JOIN payments ON order_id = orders.id"
    ):
        items = shop.execute("SELECT sku, quantity, paid, returned FROM order_items WHERE order_id = ?", [order_id])
        orders[(*order, _words(address), tuple(sorted(tuple(item) for item in items)))] += 1
    rows: dict[str, tuple[sqlite3.Connection, str]] = {
        "refunds": (shop, "SELECT source, refunds.amount FROM refunds JOIN payments ON payments.id = payment_id"),
        "stock": (shop, "SELECT sku, stock FROM products"),
        "gift cards": (shop, "SELECT number, balance FROM gift_cards"),
        "ledger charges": (ledger, "SELECT source, amount FROM charges"),
        "ledger refunds": (
            ledger,
            "SELECT source, refunds.amount FROM refunds JOIN charges ON charges.id = charge_id",
        ),
    }
    return {
        "orders": orders,
        **{table: Counter(tuple(row) for row in db.execute(query)) for table, (db, query) in rows.items()},
    }


def _words(address: str) -> str:
    """An address without the freedom of capitals, commas and spaces."""
    return " ".join(re.findall(r"\w+", address.lower()))
