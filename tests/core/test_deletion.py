"""Deleting a session takes what is its own, and nothing that others need."""

from __future__ import annotations

from pathlib import Path

import pytest

from g4agent import Agent, Budget, Sampling
from g4agent.deletion import delete_session
from g4agent.errors import SessionBusyError, SessionNotFoundError
from g4agent.store import Store

pytestmark = pytest.mark.anyio
PROMPT = "Tell me, " + "please, " * 60


def _pages(store: Store) -> set[str]:
    assert store.pages is not None
    return {path.name for path in store.pages.glob("??/*")}


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    return Agent(
        model="nano",
        system="You are brief. " * 60,
        store=Store.open(str(tmp_path / "sessions.db")),
        budget=Budget(step_tokens=40, steps=1),
        sampling=Sampling(temperature=0),
        model_options={"kv_bits": "4", "offline": True},
    )


async def _said(agent: Agent, *prompts: str) -> str:
    async with agent.session() as session:
        for prompt in prompts:
            await session.run(prompt)
        return session.id


async def test_pages(agent: Agent) -> None:
    """The keys and values of a deleted dialogue stay on the disk, or those of another session go with them."""
    async with agent:
        store = await agent.open_store()
        assert store is not None
        kept = await _said(agent, PROMPT + "a story.", PROMPT + "another story.")
        before = _pages(store)
        gone = await _said(agent, PROMPT + "a joke.")
        assert before and _pages(store) > before
        delete_session(store, gone)
        assert _pages(store) == before
        async with agent.session(kept) as session:
            await session.run("Go on.")
        delete_session(store, kept)
        assert not _pages(store)


async def test_folder_and_lease(agent: Agent) -> None:
    """A running session is deleted under its feet, or the folder of its services stays."""
    async with agent:
        store = await agent.open_store()
        assert store is not None
        async with agent.session() as session:
            await session.run("Hello.")
            store.session_folder(session.id).mkdir(parents=True)
            with pytest.raises(SessionBusyError):
                delete_session(store, session.id)
        delete_session(store, session.id)
        assert not store.session_folder(session.id).exists() and not store.list_sessions()
        with pytest.raises(SessionNotFoundError):
            delete_session(store, session.id)
