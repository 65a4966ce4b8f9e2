"""A run that is taken up goes on with the budget it had left."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from g4agent import Agent, Budget, Outcome, Policy, Rule, tool
from g4agent.budget import Spending
from g4agent.events import Usage
from g4agent.planner import Turn
from g4agent.ports.runtime import TranscriptDelta
from g4agent.recount import recount
from g4agent.store import Store
from g4agent.store.records import StepKind, StepRecord
from g4agent.testing import Script, ScriptedModel, call, say

pytestmark = pytest.mark.anyio

HELD: list[int] = []


@tool(where="host", effect="pure")
async def look(at: int) -> int:
    """Looks; the first look at 2 takes for ever."""
    HELD.append(at)
    if HELD == [1, 2]:
        await anyio.sleep_forever()
    return at


@tool(where="host")
def pay(amount: int) -> str:
    """Pays."""
    return "paid"


def looker(script: Script, store: Store, **settings: object) -> Agent:
    return Agent(model=ScriptedModel(script), tools=[look, pay], store=store, **settings)  # type: ignore[arg-type]


async def test_an_interrupted_run_has_only_its_other_steps_left(tmp_path: Path) -> None:
    """Else a run that is killed and resumed again and again never meets its budget."""
    HELD.clear()
    with Store.open(tmp_path / "store.db") as store:
        budget = Budget(steps=3)
        async with looker([call("look", at=1), call("look", at=2)], store, budget=budget).session() as session:
            with anyio.move_on_after(0.3):
                await session.run("Look")
        resumed = looker([call("look", at=n) for n in range(3, 9)], store, budget=budget)
        result = await resumed.resume(session.id)
        assert result.verdict.outcome is Outcome.BUDGET and HELD == [1, 2, 3]
        assert result.steps == 1, "a run tells what it used itself"
        again = await looker([call("look", at=4), say("Seen.")], store, budget=budget).resume(session.id)
        assert again.verdict.ok and again.steps == 2, "who takes up a run whose budget is used up gives it a new one"


async def test_waiting_for_a_person_does_not_renew_the_budget(tmp_path: Path) -> None:
    """A model whose every step asks would otherwise never come to an end."""
    ask = Policy((Rule("ask", "pay"),))
    with Store.open(tmp_path / "store.db") as store:

        def payer() -> Agent:
            model = ScriptedModel([call("pay", amount=1)] * 2)
            return Agent(model=model, tools=[pay], store=store, policy=ask, approve="later", budget=Budget(steps=2))

        result = await payer().run("Pay")
        outcomes = [result.verdict.outcome]
        for _ in range(3):
            for question in store.questions.open():
                store.questions.answer(question.id, approved=True)
            result = await payer().resume(result.session_id)
            outcomes.append(result.verdict.outcome)
            if result.verdict.outcome is Outcome.BUDGET:
                break
        assert outcomes[-1] is Outcome.BUDGET and len(outcomes) <= 4


async def test_circles_are_seen_across_an_interruption(tmp_path: Path) -> None:
    """Four equal steps are a circle, whether or not the process died between them."""
    HELD[:] = [0]
    with Store.open(tmp_path / "store.db") as store:
        async with looker([call("look", at=7)] * 3, store, budget=Budget(steps=9)).session() as session:
            with pytest.raises(Exception, match=r".*"):
                await session.run("Look")  # the script is over: the model fails
        result = await looker([call("look", at=7)] * 3, store, budget=Budget(steps=9)).resume(session.id)
        assert result.verdict.outcome is Outcome.STUCK and result.steps == 1


async def test_room_that_was_made_in_the_window_is_no_step(tmp_path: Path) -> None:
    """A long run climbs the ladder again and again: its rungs must not use up the steps that it has."""
    with Store.open(tmp_path / "store.db") as store:
        async with looker([call("look", at=1)], store).session() as session:
            with pytest.raises(Exception, match="script"):
                await session.run("Look")
        rungs: tuple[StepKind, ...] = ("trim_results", "summarise")
        begun = len(store.steps(session.id))
        for index, kind in enumerate(rungs, begun):
            rung = StepRecord(index=index, kind=kind, delta=TranscriptDelta(0, ()), usage=Usage(generated_tokens=7))
            store.commit_step(session.id, rung)
        turn = Turn(Spending(Budget()))
        recount(turn, store, session.id)
        assert turn.spending.steps == 1 and turn.spending.usage.generated_tokens >= 14
        assert turn.spending.used_here() == (Usage(), 0)
