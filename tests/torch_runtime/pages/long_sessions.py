"""Sessions of 262,144 tokens, and the same as a process that is killed at their end.

The keys and values of all but the last tokens are drawn at random and appended to the layers as the model would append
them, in passes of 1024: what is tested is how much is kept and found again, not what it means.

    python long_sessions.py SHAPE FOLDER
"""

from __future__ import annotations

import json
import random
import resource
import signal
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import torch
from tiny_models import text_config
from transformers import Gemma4ForCausalLM

from g4agent.ports.runtime import GenerateRequest, Sampling
from g4agent_torch import load
from g4agent_torch.decoder import Decoder
from g4agent_torch.engine import TorchEngine, Turns
from g4agent_torch.kv import WindowLayer
from g4agent_torch.pages.address import root_address
from g4agent_torch.pages.keeper import Keeper
from g4agent_torch.pages.page_store import opened
from g4agent_torch.residents import Residents
from g4agent_torch.turboquant.cache import PagedLayer
from g4agent_torch.turboquant.store import TurboQuantKVStore

TOKENS = 262_144
PASS = 1024
SAMPLED = 4
PAIR: dict[str, Any] = {
    "head_dim": 256,
    "global_head_dim": 512,
    "num_attention_heads": 32,
    "num_key_value_heads": 16,
    "num_global_key_value_heads": 4,
    "sliding_window": 1024,
    "max_position_embeddings": TOKENS,
}
"""A local and a global layer of Gemma 4 31B as far as keys and values go; the rest of them is tiny."""


def decoder(shape: str) -> Decoder:
    """`nano`, or `31B pair`."""
    if shape == "nano":
        found = load("nano", kv_bits="4", offline=True)._decoder
        assert found is not None
        return found
    torch.manual_seed(0)
    model = Gemma4ForCausalLM(text_config("two layers", **PAIR)).eval().to(torch.bfloat16)
    return Decoder(model, TurboQuantKVStore.attention, torch.device("cpu"))


def session(shape: str, folder: Path) -> tuple[TorchEngine, Keeper]:
    """An empty session of the shape."""
    model = decoder(shape)
    store = TurboQuantKVStore(model.text_model, "4")
    keeper = Keeper(opened(folder), root_address(shape, "any", store.described), store.new, model.device)
    grammars: Any = None  # nothing is masked
    options = {"context_length": TOKENS + 64, "prefill_chunk": 256, "keeper": keeper}
    return TorchEngine(model, store, grammars, Turns(), Residents(None), **options), keeper  # type: ignore[arg-type]


def tokens() -> list[int]:
    chance = random.Random(0)
    return [chance.randrange(110, 400) for _ in range(TOKENS - SAMPLED)]


def fill(engine: TorchEngine, keeper: Keeper, length: int) -> None:
    """Random keys and values for the first `length` tokens."""
    generator = torch.Generator().manual_seed(0)
    cache = engine._kv
    layers: Any = engine._decoder.text_model.layers
    dtype = next(engine._decoder.text_model.parameters()).dtype
    for start in range(0, length, PASS):
        count = min(PASS, length - start)
        for index, layer in enumerate(cache.layers.layers):
            if isinstance(layer, PagedLayer | WindowLayer):
                attention = layers[index].self_attn
                heads = attention.k_proj.out_features // attention.head_dim
                states = torch.randn(2, 1, heads, count, attention.head_dim, generator=generator)
                layer.update(*states.to(dtype))
        keeper.note(cache, engine.tokens, count)


async def sampled(engine: TorchEngine, count: int) -> list[list[float | None]]:
    request = GenerateRequest(count, Sampling(temperature=0), frozenset())
    async with aclosing(engine.generate(request)) as found:
        return [[token.id, token.logprob] async for token in found]


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def main(shape: str, folder: Path) -> None:
    engine, keeper = session(shape, folder)
    await engine.append(tokens())
    with torch.inference_mode():
        fill(engine, keeper, TOKENS - SAMPLED - 8)
    await sampled(engine, SAMPLED)
    memory = await engine.checkpoint()
    assert memory is not None
    history = list(engine.tokens)
    following = await sampled(engine, SAMPLED)
    print(json.dumps([history, following, memory.bytes, memory.plain_bytes, peak_megabytes()]), flush=True)
    signal.pause()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], Path(sys.argv[2]))
