"""A model that goes round in circles is stopped; one that waits or pages is not."""

from __future__ import annotations

import itertools

import pytest

from g4agent import Agent, Budget, Outcome, tool
from g4agent.testing import Reply, ScriptedModel, call, say

pytestmark = pytest.mark.anyio

COUNT = itertools.count()


@tool(where="host", effect="pure")
def look(at: str) -> str:
    """Looks at something that never changes."""
    return f"nothing at {at}"


@tool(where="host", effect="pure")
def poll() -> int:
    """Looks at something that changes."""
    return next(COUNT)


async def ends(script: list[Reply], **budget: int | None) -> tuple[Outcome, str]:
    agent = Agent(model=ScriptedModel(script), tools=[look, poll], store=False, budget=Budget(**budget))  # type: ignore[arg-type]
    verdict = (await agent.run("Go")).verdict
    return verdict.outcome, verdict.reason


async def test_the_same_call_with_the_same_result() -> None:
    """Greedy decoding repeats itself for ever; the budget would be burnt for nothing."""
    outcome, reason = await ends([call("look", at="x")] * 10)
    assert outcome is Outcome.STUCK and reason == "look was called 4 times in the same way, with the same result"


@pytest.mark.parametrize("length", [2, 3])
async def test_going_round_in_a_larger_circle(length: int) -> None:
    """Alternation is as fruitless as repetition."""
    outcome, reason = await ends([call("look", at=str(i)) for i in range(length)] * 4)
    assert outcome is Outcome.STUCK and f"the same {length} steps" in reason


async def test_waiting_is_not_a_circle() -> None:
    """Polling brings something new each time, or ends before the limit."""
    assert (await ends([*[call("poll")] * 10, say("Ready.")]))[0] is Outcome.DONE
    assert (await ends([*[call("look", at="x")] * 3, say("Nothing.")]))[0] is Outcome.DONE


async def test_the_limit_can_be_moved_and_lifted() -> None:
    """Some tools have nothing new to say for long."""
    assert (await ends([call("look", at="x")] * 3, repeats=2))[0] is Outcome.STUCK
    assert (await ends([*[call("look", at="x")] * 20, say("Done.")], repeats=None))[0] is Outcome.DONE
