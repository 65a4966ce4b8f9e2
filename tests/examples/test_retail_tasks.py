"""Seeds, tasks and the agent's definition."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest
from retail_checkout.agent import POLICY, agent, payments, workspace
from retail_checkout.evaluate import run_task
from retail_checkout.payments import BOX_SOCKET, Ledger, SocketPayments
from retail_checkout.plans import PLANS
from retail_checkout.seed import Words, new_shop, rebuild_ledger
from retail_checkout.shop import Shop
from retail_checkout.tasks import TASKS, Judgement, Task, check

from g4agent.registry import load_agent
from g4agent.testing import ScriptedModel, call, say
from g4agent.tools import Tool

EFFECTS = {
    "find_customer": "pure",
    "find_customer_by_name": "pure",
    "search_products": "pure",
    "view_cart": "pure",
    "add_to_cart": "idempotent",
    "apply_coupon": "idempotent",
    "checkout": "once",
    "get_order": "pure",
    "cancel_order": "once",
    "return_items": "once",
}


def started(task: Task) -> tuple[Shop, Ledger]:
    ledger = Ledger()
    return task.start(ledger), ledger


def judge(task: Task, shop: Shop, ledger: Ledger, answer: str) -> Judgement:
    return check(task, shop.connection, ledger.connection, answer)


def right_answer(task: Task) -> str:
    """Words that match the task's pattern: its first alternative."""
    return task.build().answer.split("|")[0]


def test_the_same_seed_makes_the_same_shop_and_another_one_does_not() -> None:
    """Training data, tasks and the payment service each make the shop anew from its seed."""
    assert workspace(7) == workspace(7) != workspace(8)


def test_the_words_of_a_shop_can_be_chosen() -> None:
    """The training data has people and products of its own, so that evaluation stays unseen."""
    words = Words(first_names=("Ada",), last_names=tuple("ABCDEFGHIJKL"), products=tuple("pqrstu"))
    shop = new_shop(1, words=words)
    names = [name for (name,) in shop.connection.execute("SELECT name FROM customers")]
    assert len(names) == 12 and all(re.fullmatch("Ada [A-L]", name) for name in names)


def test_ids_have_the_formats_that_the_model_was_trained_on() -> None:
    """Another format would be other tokens."""
    run = new_shop(5).connection.execute
    formats = {
        "SELECT id FROM customers": r"c\d{4}",
        "SELECT zip FROM customers": r"\d{5}",
        "SELECT sku FROM products": r"[A-Z]{2}\d{3}",
        "SELECT code FROM coupons": r"[A-Z]{4,6}\d{2}",
        "SELECT number FROM gift_cards": r"GC\d{6}",
        "SELECT id FROM orders": r"W\d{5}",
    }
    for query, pattern in formats.items():
        values = [value for (value,) in run(query)]
        assert values and all(re.fullmatch(pattern, value) for value in values), query


def test_a_rebuilt_ledger_is_the_ledger() -> None:
    """The payment service of a session must know the past orders' payments under the ids that the shop noted."""
    ledger, rebuilt = Ledger(), Ledger()
    shop = Task("buy_one", 4).start(ledger)
    for _ in range(2):
        rebuild_ledger(shop.connection, rebuilt)
    for table in ("charges", "refunds"):
        rows = [sorted(book.connection.execute(f"SELECT * FROM {table}")) for book in (ledger, rebuilt)]
        assert rows[0] == rows[1] != []


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_the_oracle_passes_and_doing_nothing_does_not(task: Task) -> None:
    """A checker that refuses the right end state, or accepts silence, measures nothing."""
    shop, ledger = started(task)
    assert not judge(task, shop, ledger, "").passed
    task.build().oracle(shop)
    assert judge(task, shop, ledger, right_answer(task)) == Judgement(True)


def test_wrong_end_states_fail_with_the_reason() -> None:
    """Ordering too much, for another price, or twice, is not done."""
    task = Task("buy_one", 1)
    plan = task.build()
    for spoil in (
        lambda shop: shop.connection.execute("UPDATE orders SET total = total + 1"),
        lambda shop: shop.connection.execute("UPDATE products SET stock = stock + 1"),
        lambda shop: shop.connection.execute("UPDATE orders SET address = 'elsewhere'"),
        plan.oracle,
    ):
        shop, ledger = started(task)
        plan.oracle(shop)
        spoil(shop)
        judgement = judge(task, shop, ledger, "Done.")
        assert not judgement.passed and re.search("orders|stock", judgement.why)


def test_an_order_without_its_charge_fails() -> None:
    """The shop's own records are not believed: the provider's ledger has to agree."""
    task = Task("buy_one", 1)
    shop, ledger = started(task)
    task.build().oracle(shop)
    ledger.connection.execute("DELETE FROM charges WHERE rowid = (SELECT MAX(rowid) FROM charges)")
    assert "ledger charges" in judge(task, shop, ledger, "Done.").why


def test_refusals_must_leave_the_shop_alone() -> None:
    """Shipping orders stay shipped, whatever the customer wants."""
    task = Task("cancel_shipped", 1)
    shop, ledger = started(task)
    assert judge(task, shop, ledger, "It is shipped already.").passed
    shop.connection.execute("UPDATE orders SET status = 'cancelled' WHERE status = 'shipped'")
    assert not judge(task, shop, ledger, "It is shipped already.").passed


@pytest.mark.parametrize("kind", PLANS)
def test_every_kind_of_task_can_be_built_from_any_shop(kind: str) -> None:
    """A shop may be short of stock or orders; the builders must still find what they need."""
    for seed in range(40, 46):
        assert Task(kind, seed).build().prompt


def test_the_agent_is_loaded_from_its_folder() -> None:
    """`g4agent run --agent examples/retail_checkout` finds it, with the effects that crash recovery relies on."""
    loaded = load_agent(str(Path(__file__).parents[2] / "examples" / "retail_checkout"))
    assert loaded is agent
    assert {tool.name: tool.effect for tool in loaded.tools} == EFFECTS
    assert all(isinstance(tool, Tool) and len(tool.description.split()) < 8 for tool in loaded.tools)
    assert len(POLICY.split()) <= 60


def test_the_order_of_the_readme_exists() -> None:
    """The README's first command runs with seed 0."""
    readme = (Path(__file__).parents[2] / "examples" / "retail_checkout" / "README.md").read_text()
    (order_id,) = set(re.findall(r"W\d{5}", readme))
    assert new_shop(0).get_order(order_id)["status"]


@pytest.mark.anyio
async def test_the_sessions_service_knows_the_sessions_shop(tmp_path: Path) -> None:
    """Workspace and service are made apart; a past order of the one must be refundable at the other, on resume too."""
    shop = sqlite3.connect(":memory:")
    shop.deserialize(workspace(6)["shop.db"])
    payment_id, amount = shop.execute("SELECT id, amount FROM payments ORDER BY id").fetchone()
    for _ in range(2):
        async with payments(tmp_path, 6) as sockets:
            receipt = SocketPayments(sockets[BOX_SOCKET]).refund(payment_id, amount, "cancel-1")
    assert receipt.amount == amount


@pytest.mark.anyio
async def test_a_task_is_done_and_judged_in_the_sandbox() -> None:
    """The evaluation's own path: task workspace, real box, payments over the socket, end state read back."""
    task = Task("cancel_pending", 3)
    (order_id,) = re.findall(r"W\d{5}", task.build().prompt)
    script = [
        call("cancel_order", order_id="W00000", reason="ordered by mistake"),
        call("cancel_order", order_id=order_id, reason="ordered by mistake"),
        say("It is cancelled."),
    ]
    model = ScriptedModel(script)
    assert await run_task(agent.replace(model=model, store=False), task) == Judgement(True)
    model.assert_complete()
    idle = agent.replace(model=ScriptedModel([say("It is cancelled.")]), store=False)
    assert not (await run_task(idle, task)).passed
