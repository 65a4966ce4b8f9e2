"""A stored session is run again: by a real model it comes out the same, and what does not is told to the token."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from g4agent import Agent, Budget, CallRules, Sampling, tool
from g4agent.errors import ConfigError, StoreError
from g4agent.ports.runtime import TokenRuntime
from g4agent.replay import Replay
from g4agent.store import Store
from g4agent.testing import ScriptedModel, ScriptedRuntime, call, say

pytestmark = pytest.mark.anyio

SAMPLING = Sampling(temperature=0.9, seed=11)
RAN: list[str] = []


@tool(effect="once", where="host")
def weigh(item: str, grams: int) -> dict[str, float | str]:
    """Weighs an item.

    Args:
        item: What is weighed.
        grams: What it should weigh.
    """
    RAN.append(item)
    return {"item": item, "grams": grams + 0.1 * len(RAN), "scale": "läuft"}


@tool(effect="idempotent")
def note(text: str) -> int:
    """Writes a note.

    Args:
        text: What to write.
    """
    return Path("note.txt").write_text(text)


def agent(store: Store, model: str | TokenRuntime = "nano", **settings: object) -> Agent:
    settings = {"sampling": SAMPLING, "calls": CallRules("required"), **settings}
    budget = Budget(steps=2, step_tokens=120, thought_tokens=30)
    return Agent(model=model, store=store, tools=[weigh, note], thinking=True, budget=budget, **settings)  # type: ignore[arg-type]


@asynccontextmanager
async def told(store: Store) -> AsyncIterator[tuple[Agent, str]]:
    """An agent on nano, and a session of it: two turns, calls with results, thoughts."""
    async with agent(store) as weigher:
        async with weigher.session() as session:
            await session.run("Weigh the mug, please.")
            await session.run("And the plate. Note it!")
        assert len([c for c in store.calls(session.id) if c.result is not None]) >= 2
        yield weigher, session.id


def first_difference(replay: Replay, store: Store) -> None:
    """The divergence must be the stored token at that place, and another one."""
    found = replay.divergence
    assert found is not None and found.part == "generation"
    stored = store.generation(replay.session_id, found.step)
    assert stored is not None and found.expected == stored.tokens[found.index]
    assert found.got is not None and found.got.id != found.expected.id
    before = [store.generation(replay.session_id, step) for step in range(found.step)]
    assert replay.tokens == sum(len(g.tokens) for g in before if g) + found.index and replay.steps == found.step


async def test_a_session_on_nano_comes_out_the_same_and_no_tool_runs(tmp_path: Path) -> None:
    """The promise of the seed: weeks later the very tokens are sampled, given the very results."""
    with Store.open(tmp_path / "store.db") as store:
        async with told(store) as (weigher, id):
            ran, before = list(RAN), (store.session(id), store.steps(id), store.calls(id), store.transcript(id))
            replay = await weigher.replay(id[:-1])
        assert replay.divergence is None and replay.logprob_difference == 0
        assert replay.steps == store.session(id).steps
        sampled = [store.generation(id, step) for step in range(replay.steps)]
        assert replay.tokens == sum(len(g.tokens) for g in sampled if g) > 40
        assert ran == RAN, "a tool ran"
        assert before == (store.session(id), store.steps(id), store.calls(id), store.transcript(id))
        assert store.leases.holder(id) is None


async def test_sessions_that_were_resumed_or_forked_come_out_the_same(tmp_path: Path) -> None:
    """There the transcript was computed in one piece and not step by step: the last bits of a log probability may
    differ by that, and the tokens must not."""
    with Store.open(tmp_path / "store.db") as store:
        async with told(store) as (weigher, id):
            fork = await weigher.fork(id[:-1], 1)
            await weigher.resume(fork, "No, the plate.")
            await weigher.resume(fork, "And the bowl.")
            replay = await weigher.replay(fork)
        assert replay.divergence is None and replay.logprob_difference < 1e-4
        assert replay.steps == store.session(fork).steps > 4
        assert store.transcript(fork)[:40] == store.transcript(id)[:40]


async def test_another_seed_temperature_or_cache_is_found(tmp_path: Path) -> None:
    """The first other token is told with what was there; a sampling that is not the session's own must show."""
    with Store.open(tmp_path / "store.db") as store:
        async with told(store) as (weigher, id):
            first_difference(await weigher.replay(id, Sampling(temperature=0.9, seed=12)), store)
            first_difference(await weigher.replay(id, Sampling(temperature=2.0, top_p=1.0, top_k=0, seed=11)), store)
        async with agent(store, model_options={"kv_bits": "2.5"}) as compressed:
            replay = await compressed.replay(id)
            assert replay.logprob_difference > 0 or replay.tokens == 0


async def test_another_model_is_found(tmp_path: Path) -> None:
    """Other weights are not refused, as they are by `resume`: to see where they go another way is the point."""
    with Store.open(tmp_path / "store.db") as store:
        note_a = '<|tool_call>call:note{text:<|"|>a<|"|>}<tool_call|><|tool_response>'
        first = ScriptedRuntime([note_a, "Noted.<turn|>"])
        scripted = agent(store, first, calls=CallRules())
        id = (await scripted.run("Note it")).session_id
        good = await agent(store, ScriptedRuntime(list(first.script)), calls=CallRules()).replay(id)
        assert good.divergence is None and good.steps == 3 and math.isclose(good.logprob_difference, 0)
        for script, at in ((["<|tool_call>call:weigh"], (1, 6)), ([note_a, "Noted"], (2, 5))):
            found = (await agent(store, ScriptedRuntime(script), calls=CallRules()).replay(id)).divergence
            assert found is not None and (found.step, found.index, found.part) == (*at, "generation")
        assert found.got is None and found.expected is not None, "the last one ended too early"


async def test_a_prompt_that_is_rendered_otherwise_is_found(tmp_path: Path) -> None:
    """A template that changed gives the model other tokens before it has sampled any."""
    with Store.open(tmp_path / "store.db") as store:
        made = agent(store, ScriptedRuntime(["Hi.<turn|>"]), calls=CallRules())
        id = (await made.run("Hello")).session_id
        runtime = ScriptedRuntime(["Hi.<turn|>"])
        encode = runtime.tokenizer.encode

        class Capitals(type(runtime.tokenizer)):  # type: ignore[misc]
            def encode(self, text: str) -> list[int]:
                return encode(text.replace("Hello", "HELLO"))

        runtime.tokenizer = Capitals()
        found = (await agent(store, runtime, calls=CallRules()).replay(id)).divergence
        assert found is not None and (found.step, found.part) == (0, "prompt")
        assert found.expected is not None and found.got is not None
        assert runtime.tokenizer.decode([found.expected.id, found.got.id]) == "eE"


async def test_what_cannot_be_replayed_is_said(tmp_path: Path) -> None:
    """Sessions of chat-only models have no tokens; other tools would render another system turn."""
    with Store.open(tmp_path / "store.db") as store:
        chat = Agent(model=ScriptedModel([call("note", text="a"), say("Done.")]), tools=[note], store=store)
        id = (await chat.run("Note it")).session_id
        with pytest.raises(ConfigError, match="no tokens to compare"):
            await chat.replay(id)
        with pytest.raises(StoreError, match=r"Step 1 of session .* has no sampled tokens"):
            await Agent(model=ScriptedRuntime([]), tools=[note], store=store).replay(id)
        with pytest.raises(ConfigError, match="other tools"):
            await Agent(model=ScriptedRuntime([]), tools=[weigh], store=store).replay(id)
        with pytest.raises(ConfigError, match="keeps no sessions"):
            await Agent(model=ScriptedRuntime([]), store=False).replay(id)
