"""nano on its main job with a compressed cache: what it does must not change with the bits of its memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from g4agent import Agent, Outcome, Sampling
from g4agent.registry import load_agent

pytestmark = pytest.mark.anyio

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
COMPRESSED_FROM = 272
"""Tokens from which nano's cache holds encoded pages: sinks, a page, and the tail in full precision."""


async def buys(agent: Agent, tmp_path: Path, name: str) -> tuple[str, int]:
    """The answer to a customer, and the length of the transcript."""
    async with agent.replace(store=tmp_path / name) as shop, shop.session() as session:
        result = await session.run(
            "I am luis.adams@example.org. Please order a brown travel pillow, pay with my card, ship it to my address."
        )
        assert result.verdict.outcome is Outcome.DONE, result
        assert [r.name for r in result.results][-1] == "checkout"
        return result.answer, session.conversation.length


@pytest.mark.parametrize("bits", ["4", "3.5"])
async def test_a_purchase_is_the_same_with_a_compressed_cache(tmp_path: Path, bits: str) -> None:
    shop = load_agent(str(EXAMPLES / "retail_checkout")).replace(model="nano", sampling=Sampling(temperature=0, seed=1))
    full = await buys(shop, tmp_path, "full.db")
    compressed = await buys(shop.replace(model_options={"kv_bits": bits}), tmp_path, "compressed.db")
    assert compressed == full
    assert full[1] > COMPRESSED_FROM + 128
