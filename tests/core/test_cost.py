"""What calls cost: declared with the tool, limited by rules, counted over the session."""

from __future__ import annotations

from pathlib import Path

import pytest

from g4agent import Agent, Policy, Rule, tool
from g4agent.cost import Cost, cost_of
from g4agent.errors import ToolDefinitionError
from g4agent.messages import ToolCall
from g4agent.policy import CallContext
from g4agent.store import Store
from g4agent.testing import ScriptedModel, call, calls, say

pytestmark = pytest.mark.anyio

PAID: list[float] = []


@tool(where="host", cost="amount")
def pay(amount: float) -> str:
    """Pays."""
    PAID.append(amount)
    return "paid"


@tool(where="host", effect="pure", cost=0.5)
def search(words: str) -> str:
    """Asks a service that takes money for every question."""
    return words


@tool(where="host", effect="pure")
def look() -> str:
    """Looks."""
    return "nothing"


def test_a_call_costs_what_its_tool_declares() -> None:
    """A negative argument must not make room for other calls."""
    assert cost_of(pay, {"amount": 12.5}) == 12.5 and cost_of(pay, {"amount": -3}) == 0.0
    assert cost_of(search, {"words": "a"}) == 0.5 and cost_of(look, {}) == 0.0


@pytest.mark.parametrize("cost", [-1.0, float("nan"), float("inf"), "price", "note", "tip"])
def test_a_cost_that_cannot_be_told_is_refused(cost: Cost) -> None:
    """A rule on a cost that is missing in some calls would let those calls through."""

    def buy(amount: float, note: str, tip: float = 0.0) -> str:
        """Buys."""
        return "bought"

    with pytest.raises(ToolDefinitionError, match="cost"):
        tool(where="host", cost=cost)(buy)


@pytest.mark.parametrize(
    ("rule", "cost", "spent", "matches"),
    [
        (Rule("deny", cost_over=10), 10.5, 0.0, True),
        (Rule("deny", cost_over=10), 10.0, 99.0, False),
        (Rule("deny", total_cost_over=10), 4.0, 6.0, False),
        (Rule("deny", total_cost_over=10), 4.0, 6.5, True),
        (Rule("deny", total_cost_over=10), 0.0, 12.0, False),
    ],
)
def test_rules_on_cost(rule: Rule, cost: float, spent: float, matches: bool) -> None:
    """The limit itself is allowed; what is free is never too dear."""
    context = CallContext(ToolCall("s0c0", "pay", {"amount": cost}), pay, cost=cost, spent=spent)
    assert rule.matches(context) is matches


async def test_a_session_spends_no_more_than_its_rule_allows(tmp_path: Path) -> None:
    """Neither calls that stand side by side in one step nor a new process get round the limit."""
    PAID.clear()
    policy = Policy((Rule("deny", total_cost_over=10),))
    with Store.open(tmp_path / "store.db") as store:
        together = calls(call("pay", amount=6), call("pay", amount=6), call("pay", amount=4))
        model = ScriptedModel([together, say("Paid.")])
        first = await Agent(model=model, tools=[pay, search], store=store, policy=policy).run("Pay")
        assert sorted(PAID) == [4, 6]
        refused = first.results[1]
        assert refused.error is not None and "would cost more than 10" in refused.error.message
        model = ScriptedModel([call("search", words="more"), say("No.")])
        second = await Agent(model=model, tools=[pay, search], store=store, policy=policy).resume(
            first.session_id, "More"
        )
        assert second.results[0].error is not None, "what an earlier process spent counts"


async def test_calls_side_by_side_count_for_calls_over() -> None:
    """A model that writes all its calls in one step must not get round `calls_over`."""
    PAID.clear()
    model = ScriptedModel([calls(*(call("pay", amount=n) for n in range(1, 5))), say("Paid.")])
    policy = Policy((Rule("deny", "pay", calls_over=2),))
    await Agent(model=model, tools=[pay], store=False, policy=policy).run("Pay")
    assert sorted(PAID) == [1, 2]
