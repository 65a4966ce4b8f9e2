"""A stored session's keys and values are on disk with its steps, and a resumed run does not compute them again."""

from __future__ import annotations

from pathlib import Path

import pytest

from g4agent import Agent, Budget, Outcome, Sampling
from g4agent.events import PagesLost
from g4agent.registry import load_agent

pytestmark = pytest.mark.anyio

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ORDER = "I am luis.adams@example.org. Please order a brown travel pillow, pay with my card, ship it to my address."
THANKS = "Thank you. What did I order?"


def shop(store: Path, **options: object) -> Agent:
    agent = load_agent(str(EXAMPLES / "retail_checkout"))
    return agent.replace(
        model="nano", sampling=Sampling(temperature=0, seed=1), store=store, model_options={"kv_bits": "4", **options}
    )


async def test_a_session_goes_on_in_another_process_without_prefill(tmp_path: Path) -> None:
    """The second turn, by another agent object, computes its own tokens only, and says what it says in one process."""
    answers = []
    async with shop(tmp_path / "one.db") as agent, agent.session() as session:
        await session.run(ORDER)
        answers.append((await session.run(THANKS)).answer)
        length = session.conversation.length

    async with shop(tmp_path / "two.db") as agent:
        first = await agent.run(ORDER)
        assert first.verdict.outcome is Outcome.DONE
    async with shop(tmp_path / "two.db") as agent, agent.session(first.session_id) as session:
        before = session.conversation.length
        events = [event async for event in session.stream(THANKS)]
        assert not [event for event in events if isinstance(event, PagesLost)]
        assert session.conversation.length == length
        answers.append(events[-1].answer)  # type: ignore[union-attr]
        assert session.recorder is not None
        assert session.recorder.computed_tokens <= length - before + 32, "only what is new"
    assert answers[0] == answers[1]


async def test_the_list_of_sessions_says_what_they_take(tmp_path: Path) -> None:
    """Counted when the step was committed: compressed, and as it would be without."""
    async with shop(tmp_path / "store.db") as agent:
        await agent.run(ORDER)
        store = await agent.open_store()
        assert store is not None
        (summary,) = store.list_sessions()
    memory = summary.memory
    assert memory is not None and summary.tokens - 200 < memory.tokens < summary.tokens
    growing, window = 2 * 2 * 64 * 4, 2 * 2 * 32 * 4  # nano in float32: bytes per token and layer
    assert memory.plain_bytes == memory.tokens * 2 * growing // 2 + 128 * 2 * window
    assert memory.bytes < memory.plain_bytes


async def test_without_disk_for_pages_there_are_none(tmp_path: Path) -> None:
    async with shop(tmp_path / "store.db", kv_disk=0) as agent:
        await agent.run(ORDER)
        store = await agent.open_store()
        assert store is not None and store.list_sessions()[0].memory is None
    assert not (tmp_path / "pages").exists()


async def test_damaged_pages_are_an_event(tmp_path: Path) -> None:
    """Somebody should look at the disk; the run itself goes on."""
    async with shop(tmp_path / "store.db") as agent:
        first = await agent.run(ORDER)
    for page in tmp_path.glob("pages/??/*.rows"):
        page.write_bytes(page.read_bytes()[:-9])
    async with shop(tmp_path / "store.db") as agent, agent.session(first.session_id) as session:
        events = [event async for event in session.stream(THANKS)]
    lost = [event for event in events if isinstance(event, PagesLost)]
    assert lost and "damaged" in lost[0].problem


async def test_a_store_in_memory_leaves_nothing_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("G4AGENT_HOME", str(tmp_path))
    async with Agent(model="nano", store="sqlite://", budget=Budget(tokens=200)) as agent, agent.session() as session:
        await session.run("Hello")
    assert not list(tmp_path.iterdir())
