"""The whole way with a real model: nano in a small window, with and without the ladder."""

from __future__ import annotations

from pathlib import Path

import pytest

from g4agent import Agent, Budget, CallRules, Outcome, Sampling, tool
from g4agent.errors import ContextOverflowError
from g4agent.store import Store

pytestmark = pytest.mark.anyio

WINDOW, TURNS = 1000, 7


@tool(effect="pure", where="host")
def read_page(page: int) -> str:
    """Reads a page of the book.

    Args:
        page: Its number.
    """
    return "\n".join(f"line {line} of page {page}" for line in range(16))


def reader(store: Store, **settings: object) -> Agent:
    return Agent(
        model="nano",
        tools=[read_page],
        store=store,
        sampling=Sampling(temperature=0),
        budget=Budget(steps=1, step_tokens=30),
        calls=CallRules("required"),
        model_options={"context_length": WINDOW},
        **settings,  # type: ignore[arg-type]
    )


async def test_nano_reads_on_where_it_would_have_run_over(tmp_path: Path) -> None:
    """Turn after turn with results that together do not fit; control: without the ladder it ends in a typed error."""
    with Store.open(tmp_path / "store.db") as store:
        async with reader(store) as made:
            async with made.session() as session:
                for turn in range(TURNS):
                    result = await session.run(f"Read page {turn} of the book, please.")
                    assert result.verdict.outcome is Outcome.BUDGET and len(result.results) == 1
                    assert session.conversation.length == len(store.transcript(session.id)) <= WINDOW
            kinds = [step.kind for step in store.steps(session.id)]
            assert "summarise" in kinds and kinds.count("model") == TURNS
            replay = await made.replay(session.id)
            assert replay.divergence is None and replay.steps == len(kinds)
            length = store.session(session.id).tokens
            async with made.session(session.id) as again:
                assert again.conversation.length == length
                assert (await again.run("And page 3?")).verdict.outcome is Outcome.BUDGET
        async with reader(store, context=None) as made, made.session() as session:
            with pytest.raises(ContextOverflowError):
                for turn in range(TURNS):
                    result = await session.run(f"Read page {turn} of the book, please.")
                    if result.verdict.outcome is Outcome.CONTEXT_FULL:
                        raise ContextOverflowError("in the middle of a turn")
