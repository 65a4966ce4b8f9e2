"""Sessions of nano for the tests of its pages, and the same as a process that can be killed.

python page_sessions.py FOLDER KV_BITS
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import anyio
import torch

from g4agent.ports.runtime import GenerateRequest, SampledToken, Sampling, TokenEngine
from g4agent_torch import load
from g4agent_torch.engine import TorchEngine

torch.set_num_threads(1)
ROUNDS = 8
ANSWER = 30
GREEDY = Sampling(temperature=0)


def prompt(index: int, length: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(index)
    return torch.randint(300, 2048, (length or (700 if index == 0 else 20 + 37 * index),), generator=generator).tolist()


async def answered(engine: TokenEngine, count: int = ANSWER) -> list[SampledToken]:
    request = GenerateRequest(max_tokens=count, sampling=GREEDY, stop_ids=frozenset())
    async with aclosing(engine.generate(request)) as tokens:
        return [token async for token in tokens]


async def rounds(engine: TorchEngine, first: int, last: int) -> list[SampledToken]:
    """A prompt, an answer and a checkpoint each; round 0 has a mark behind its system turn."""
    said: list[SampledToken] = []
    for index in range(first, last):
        if index == 0:
            await engine.append(prompt(99, 300))
            await engine.mark()
        await engine.append(prompt(index))
        said += await answered(engine)
        await engine.checkpoint()
    return said


def committed(folder: Path) -> tuple[int, list[int]]:
    """Rounds and tokens that a killed process had committed."""
    file = folder / "committed.json"
    done, tokens = json.loads(file.read_text()) if file.exists() else (0, [])
    return done, tokens


def commit(folder: Path, done: int, tokens: Sequence[int]) -> None:
    part = folder / "committed.part"
    part.write_text(json.dumps([done, list(tokens)]))
    part.rename(folder / "committed.json")


async def main(folder: Path, kv_bits: str) -> None:
    engine = await load("nano", kv_bits=kv_bits, offline=True).open_durable_engine(folder / "pages")
    done, tokens = committed(folder)
    await engine.append(tokens)
    print("ready", flush=True)
    for index in range(done, ROUNDS):
        await rounds(engine, index, index + 1)
        commit(folder, index + 1, engine.tokens)
    print("done", flush=True)


if __name__ == "__main__":
    os.nice(1)
    anyio.run(main, Path(sys.argv[1]), sys.argv[2])
