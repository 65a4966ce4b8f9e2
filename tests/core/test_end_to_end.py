"""The main job on real parts: nano, the sandbox, the store. No step of it is played by a stand-in."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from g4agent import Agent, Budget, Outcome, Sampling, tool
from g4agent.gemma4.conversation import NativeConversation
from g4agent.messages import ToolResult
from g4agent.ports.runtime import GenerateRequest
from g4agent.registry import load_agent
from g4agent.store import Store
from g4agent.testing import Reply, Script, ScriptedModel, call, say

pytestmark = pytest.mark.anyio

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
GREEDY = Sampling(temperature=0)


@tool(effect="pure")
def where_am_i() -> dict[str, str | int]:
    """Tells about the place where tools run."""
    import os

    return {"folder": str(Path.cwd()), "user": os.getuid(), "home": os.environ.get("HOME", "")}


@tool(effect="idempotent")
def note(text: str) -> int:
    """Adds a line to the notes."""
    with Path("notes.txt").open("a") as file:
        file.write(text + "\n")
    return len(Path("notes.txt").read_text().splitlines())


async def test_nano_drives_the_retail_agent_through_every_part(tmp_path: Path) -> None:
    """If any joint of the house breaks (renderer, engine, parser, box, service, store), this run shows it."""
    shop = load_agent(str(EXAMPLES / "retail_checkout"))
    with Store.open(tmp_path / "store.db") as store:
        agent = shop.replace(model="nano", sampling=GREEDY, store=store, budget=Budget(steps=6, step_tokens=200))
        async with agent, agent.session() as session:
            result = await session.run("I am mia.smith@example.com. What is the status of order W12345?")
            assert isinstance(session.conversation, NativeConversation)
            tokens, usage, id = session.conversation.length, result.usage, session.id
        assert result.steps >= 1 and usage.generated_tokens > 0
        transcript = store.transcript(id)
        assert len(transcript) == tokens
        calls = store.calls(id)
        assert all(c.result is not None for c in calls) and len(calls) == len(result.results)
        assert [s.kind for s in store.steps(id)] == ["user"] + ["model"] * result.steps


async def test_a_run_computes_each_token_once(tmp_path: Path) -> None:
    """The token-exact transcript: over a whole run with tool results, what was computed is what is there."""
    shop = load_agent(str(EXAMPLES / "retail_checkout"))
    agent = shop.replace(model="nano", sampling=GREEDY, store=False, budget=Budget(steps=3, step_tokens=60))
    runtime = await agent.load()
    async with agent.session() as session:
        await session.run("I am mia.smith@example.com. What is the status of order W12345?")
        assert isinstance(session.conversation, NativeConversation)
        engine = session.conversation.engine
        async for _ in engine.generate(GenerateRequest(max_tokens=1, sampling=GREEDY)):
            pass  # has the cache catch up with what was appended last
        assert engine.computed_tokens == len(engine.tokens) - 1
    await runtime.close()


async def test_the_same_seed_gives_the_same_run_and_another_process_could_take_it_up(tmp_path: Path) -> None:
    """Sampling depends on seed and position only, so a resumed session continues as the uninterrupted one would."""
    shop = load_agent(str(EXAMPLES / "retail_checkout"))
    with Store.open(tmp_path / "store.db") as store:
        sampling = Sampling(temperature=0.8, seed=5)
        agent = shop.replace(model="nano", sampling=sampling, store=store, budget=Budget(steps=4, step_tokens=80))
        async with agent:
            first, second = await agent.run("Hello!"), await agent.run("Hello!")
            assert store.transcript(first.session_id) == store.transcript(second.session_id)
            async with agent.session() as whole:
                await whole.run("Hello!")
                expected = await whole.run("Bye!")
            resumed = await agent.resume(first.session_id, "Bye!")
            assert resumed.answer == expected.answer
            assert store.transcript(first.session_id) == store.transcript(whole.id)


def scripted(script: Script, **settings: object) -> Agent:
    model = ScriptedModel(script)
    return Agent(**{"model": model, "tools": [where_am_i, note], **settings})  # type: ignore[arg-type]


async def test_python_tools_run_inside_the_box_not_here(tmp_path: Path) -> None:
    """A sandboxed tool must see the box: another user, another folder, a clean environment."""
    result = await scripted([call("where_am_i"), say("There.")], store=False).run("Where?")
    (there,) = [r.value for r in result.results]
    assert isinstance(there, dict)
    assert there["folder"] != str(Path.cwd()) and there["user"] != 0


async def test_the_workspace_lives_through_calls_and_comes_back_with_the_session(tmp_path: Path) -> None:
    """State between calls is the workspace; a resumed session finds it as the last committed step left it."""
    with Store.open(tmp_path / "store.db") as store:
        script = [
            call("note", text="one"),
            call("note", text="two"),
            say("Noted."),
            call("note", text="three"),
            say("3"),
        ]
        agent = scripted(script, store=store)
        first = await agent.run("Note it")
        assert [r.value for r in first.results] == [1, 2]
        again = await agent.resume(first.session_id, "One more")
        assert [r.value for r in again.results] == [3]
        saved = store.workspace(first.session_id)
        assert saved is not None and b"one\ntwo\nthree\n" in saved


async def test_a_broken_box_costs_one_result_not_the_session(tmp_path: Path) -> None:
    """A box that dies is answered with an error; the next call gets a new one, as the last committed step left it."""

    def break_box(results: Sequence[ToolResult]) -> Reply:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        (box,) = [pid for pid in children if Path(f"/proc/{pid}/comm").read_text() == "bwrap\n"]
        os.kill(int(box), signal.SIGKILL)
        return call("note", text="lost")

    with Store.open(tmp_path / "store.db") as store:
        script = [call("note", text="one"), break_box, call("note", text="two"), say("Noted.")]
        result = await scripted(script, store=store).run("Note it")
    first, lost, second = result.results
    assert lost.error is not None and lost.error.kind == "sandbox"
    assert (first.value, second.value, result.verdict.outcome) == (1, 2, Outcome.DONE)


async def test_a_scripted_customer_buys_for_real(tmp_path: Path) -> None:
    """Ten tools, the payment service and the shop's database work together inside the box."""
    sys.path.insert(0, str(EXAMPLES))
    from retail_checkout.tasks import Task

    shop = load_agent(str(EXAMPLES / "retail_checkout"))
    task = Task("buy_one", 3)
    start = task.workspace(0)["shop.db"]
    database = sqlite3.connect(":memory:")
    database.deserialize(start)
    customer, email = database.execute("SELECT id, email FROM customers LIMIT 1").fetchone()
    sku, name = database.execute("SELECT sku, name FROM products WHERE stock > 2 LIMIT 1").fetchone()

    script = [
        call("find_customer", email=email),
        call("search_products", query=name),
        call("add_to_cart", customer_id=customer, sku=sku, quantity=2),
        call("checkout", customer_id=customer, payment="card", address="1 Main Street, Town 12345"),
        say("Ordered."),
    ]
    agent = shop.replace(model=ScriptedModel(script), store=False, workspace=lambda seed: {"shop.db": start})  # type: ignore[arg-type]
    async with agent.session() as session:
        result = await session.run("Buy it")
        database.deserialize(await session.read_file("shop.db"))
    assert result.verdict.outcome is Outcome.DONE
    assert all(r.error is None for r in result.results), result.results
    order = database.execute(
        "SELECT status, address FROM orders WHERE customer_id = ? ORDER BY rowid DESC", (customer,)
    )
    assert order.fetchone() == ("pending", "1 Main Street, Town 12345")
