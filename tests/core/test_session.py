"""Sessions: what is remembered of interrupted calls, and who owns services, weights and temporary folders."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from g4agent import Agent, Budget, Outcome, tool
from g4agent.errors import ConversationError
from g4agent.messages import ToolCall
from g4agent.store import Store
from g4agent.testing import Script, ScriptedModel, ScriptedRuntime, call, say
from g4agent.tools import Tool

pytestmark = pytest.mark.anyio

PAID: list[int] = []


@tool(where="host")
async def pay(amount: int) -> str:
    """Pays, and takes its time afterwards."""
    PAID.append(amount)
    if len(PAID) == 1:
        await anyio.sleep_forever()
    return "paid"


@tool(effect="pure")
def look() -> int:
    """Looks."""
    return 1


def payer(script: Script, store: Store, **settings: object) -> Agent:
    return Agent(model=ScriptedModel(script), tools=[pay], store=store, **settings)  # type: ignore[arg-type]


async def interrupted_payment(store: Store) -> str:
    """A session whose payment was made and then stopped before its result."""
    PAID.clear()
    async with payer([call("pay", amount=1)], store).session() as session:
        with anyio.move_on_after(0.2):
            await session.run("Pay 1")
    assert PAID == [1]
    return session.id


async def test_a_stopped_payment_is_not_repeated_unasked(tmp_path: Path) -> None:
    """A `once` call that was ended in the middle may have done its work: the very same call needs a person's word."""
    with Store.open(tmp_path / "store.db") as store:
        id = await interrupted_payment(store)
        result = await payer([call("pay", amount=1), say("Not paid again.")], store).resume(id)
        assert PAID == [1]
        (refused,) = result.results
        assert refused.error is not None and refused.error.kind == "denied" and "unknown" in refused.error.message
        result = await payer([call("pay", amount=2), say("Another one.")], store).resume(id, "Pay 2")
        assert PAID == [1, 2] and result.verdict.ok


async def test_an_approved_repeat_settles_the_matter(tmp_path: Path) -> None:
    """Once a person let the call run again and it came to an end, the same call is an ordinary one."""
    asked: list[str] = []

    async def approve(request: ToolCall, tool: Tool, reason: str) -> bool:
        asked.append(reason)
        return True

    with Store.open(tmp_path / "store.db") as store:
        id = await interrupted_payment(store)
        twice = [call("pay", amount=1), call("pay", amount=1), say("Paid.")]
        await payer(twice, store, approve=approve).resume(id)
        assert PAID == [1, 1, 1] and len(asked) == 1
        await payer([call("pay", amount=1), say("Paid.")], store).resume(id, "Once more")
        assert PAID == [1, 1, 1, 1]


async def test_only_a_turn_that_stands_open_can_be_taken_up(tmp_path: Path) -> None:
    """A closed turn, its answer cut or missing, cannot go on: asking for that must say so, and a prompt works."""
    with Store.open(tmp_path / "store.db") as store:
        agent = Agent(model=ScriptedRuntime(["a long answer", "Hi.<turn|>"]), store=store, budget=Budget(step_tokens=5))
        async with agent.session() as session:
            assert (await session.run("Go")).verdict.outcome is Outcome.CUT_OFF
            with pytest.raises(ConversationError, match="no interrupted run"):
                await session.run(None)
        assert not store.session(session.id).interrupted
        async with agent.replace(budget=Budget()).session(session.id) as again:
            assert (await again.run("Hello")).answer == "Hi."


async def test_a_generation_that_is_cut_by_time_is_counted(tmp_path: Path) -> None:
    """Tokens were made and time was spent: a budget that forgets them is none."""
    agent = Agent(
        model=ScriptedRuntime(["word " * 200_000]), store=False, budget=Budget(wall_seconds=0.2, step_tokens=10**6)
    )
    started = time.monotonic()
    result = await agent.run("Go")
    assert result.verdict.outcome is Outcome.BUDGET and time.monotonic() - started < 5
    assert result.usage.generated_tokens > 0 and result.usage.seconds > 0


async def test_a_service_that_failed_to_start_is_tried_again(tmp_path: Path) -> None:
    """A box must not open without a service that its tools need, and the service's folder is private to the session."""
    folders: list[Path] = []

    @asynccontextmanager
    async def service(folder: Path, seed: int) -> AsyncIterator[dict[str, Path]]:
        folders.append(folder)
        assert folder.is_dir() and folder.stat().st_mode & 0o077 == 0
        if len(folders) == 1:
            raise RuntimeError("not yet")
        yield {}

    agent = Agent(model=ScriptedModel([]), tools=[look], store=False, services=[service])
    async with agent.session() as session:
        with pytest.raises(RuntimeError, match="not yet"):
            await session.open_box()
        await session.open_box()
    assert len(folders) == 2 and not any(folder.exists() for folder in folders)


async def test_weights_are_freed_by_the_agent_that_loaded_them() -> None:
    """Closing a copy made by `replace` must not pull the weights from under the original."""
    async with Agent(model="nano", store=False) as agent:
        runtime = await agent.load()
        async with agent.replace(thinking=True) as copy:
            assert await copy.load() is runtime
        async with agent.session() as session:
            assert session.model.name == "nano"
