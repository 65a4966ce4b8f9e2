"""The agent without a model: a script makes the calls, the tools run in the real box."""

from __future__ import annotations

from g4agent import RunResult
from g4agent.ports.sandbox import LimitName
from g4agent.testing import Reply, ScriptedModel, call, say

from agent import agent


ANYWHERE: frozenset[LimitName] = frozenset({"memory", "cpu"})
"""Limits that a CI job without control groups cannot enforce."""


def run(reply: Reply) -> RunResult:
    model = ScriptedModel([reply, say("Done.")])
    return agent.replace(model=model, store=False, allow_degraded=ANYWHERE).run_sync("…")


def test_the_stock_is_read() -> None:
    (result,) = run(call("check_stock", name="lamp")).results
    assert result.value == {"value": 12}


def test_a_large_order_is_denied() -> None:
    (result,) = run(call("order_product", name="lamp", quantity=11)).results
    assert result.error is not None and result.error.kind == "denied"
