"""How long a session waits for its next token after a restart: pages mapped back, against the prompt prefilled again.

    python benchmarks/resume.py [--tokens 2048,8192,32768] [--bits 4] [--model gemma-3-270m] [--json] [--check]

For each length a process prefills the prompt, samples a token, saves, and is killed. Another one loads the model, opens
the session by its tokens, and is timed until the token after next; its files are dropped from the system's cache
before. Loading the weights is not counted on either side. Both sample the very same token with the same logits, or the
benchmark fails. `nano` needs no download, but is too small to say much.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import torch
from _report import Report, Target, arguments, publish

from g4agent.ports.runtime import GenerateRequest, Sampling
from g4agent_torch import load
from g4agent_torch.decoder import Decoder
from g4agent_torch.engine import TorchEngine, Turns
from g4agent_torch.kv import DenseKVStore
from g4agent_torch.pages.address import root_address
from g4agent_torch.pages.keeper import Keeper
from g4agent_torch.pages.page_store import opened
from g4agent_torch.pages.quota import files
from g4agent_torch.residents import Residents
from g4agent_torch.turboquant.store import TurboQuantKVStore

ROUNDS = 5
WARMING = 300
SPEEDUP, SPEEDUP_TOKENS = 50.0, 8192


async def opener(name: str, bits: str) -> Any:
    """Makes engines of a model, each over a folder."""
    if name == "nano":
        runtime = load("nano", kv_bits=bits, offline=True)
        return runtime.open_durable_engine, runtime.tokenizer.vocab_size
    import _real_models

    model, _ = _real_models.load(name)
    store: Any = DenseKVStore(model.config) if bits == "16" else TurboQuantKVStore(model.get_decoder(), bits)
    decoder = Decoder(model, store.attention, torch.device("cpu"))
    turns, residents = Turns(), Residents(None)

    async def engine(folder: Path) -> TorchEngine:
        keeper = Keeper(opened(folder), root_address(name, "float32", store.described), store.new, decoder.device)
        grammars: Any = None  # nothing is masked
        length = model.config.max_position_embeddings + 64
        return TorchEngine(
            decoder, store, grammars, turns, residents, context_length=length, prefill_chunk=256, keeper=keeper
        )

    return engine, decoder.vocab_size


async def sampled(engine: TorchEngine, count: int) -> list[tuple[int, float | None]]:
    request = GenerateRequest(count, Sampling(temperature=0), frozenset())
    async with aclosing(engine.generate(request)) as tokens:
        return [(token.id, token.logprob) async for token in tokens]


async def first_life(open_engine: Any, folder: Path, prompt: list[int]) -> None:
    """Prefills, samples, saves, says what comes next, and waits to be killed."""
    engine = await open_engine(folder)
    await engine.append(prompt)
    started = time.perf_counter()
    await sampled(engine, 1)
    seconds = time.perf_counter() - started
    await sampled(engine, 1)
    memory = await engine.checkpoint()
    tokens = list(engine.tokens)
    following = await sampled(engine, 1)
    print(json.dumps([seconds, tokens, following, memory.bytes]), flush=True)
    signal.pause()


async def second_life(open_engine: Any, folder: Path, tokens: list[int]) -> None:
    times = []
    for _ in range(ROUNDS):
        forget_files(folder)
        started = time.perf_counter()
        engine = await open_engine(folder)
        await engine.append(tokens)
        following = await sampled(engine, 1)
        times.append(time.perf_counter() - started)
        computed = engine.computed_tokens
        await engine.close()
    print(json.dumps([sorted(times)[ROUNDS // 2], following, computed]), flush=True)


def forget_files(folder: Path) -> None:
    """Has the system read them from the disk again."""
    for file in files(folder):
        descriptor = os.open(file.path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


async def live(options: argparse.Namespace) -> None:
    """One of the two processes."""
    folder = Path(options.folder)
    open_engine, vocabulary = await opener(options.model, options.bits)
    warm = await open_engine(folder / "warm")
    await warm.append([5] * WARMING)
    await sampled(warm, 3)
    await warm.close()
    if options.life == 1:
        generator = torch.Generator().manual_seed(0)
        prompt = torch.randint(108, vocabulary, (int(options.tokens),), generator=generator).tolist()
        await first_life(open_engine, folder / "pages", prompt)
    else:
        await second_life(open_engine, folder / "pages", json.load(sys.stdin))


def measured(options: argparse.Namespace, tokens: int) -> tuple[dict[str, float | None], float]:
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        shared = ["--model", options.model, "--bits", options.bits, "--folder", folder, "--tokens", str(tokens)]
        command = [sys.executable, __file__, *shared, "--life"]
        with subprocess.Popen([*command, "1"], stdout=subprocess.PIPE, text=True) as first:
            assert first.stdout is not None
            prefill, history, expected, held = json.loads(first.stdout.readline())
            first.send_signal(signal.SIGKILL)
        size = sum(file.size for file in files(Path(folder, "pages")))
        second = subprocess.run(
            [*command, "2"], input=json.dumps(history), stdout=subprocess.PIPE, text=True, check=True
        )
        restored, following, computed = json.loads(second.stdout)
    if following != expected:
        raise SystemExit(f"After the restart came {following}, not {expected}.")
    row: dict[str, float | None] = {"prefilled s": prefill, "restored s": restored, "times": prefill / restored}
    return row | {"computed": computed, "held MB": held / 1e6, "disk MB": size / 1e6}, prefill / restored


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--tokens", default="2048,8192,32768", help="lengths of the prompt")
    parser.add_argument("--bits", default="4", help="of the cache: 16, 4, 3.5 or 2.5")
    parser.add_argument("--model", default="gemma-3-270m", help="gemma-3-270m or nano")
    parser.add_argument("--scratch", help="folder for the pages; default: the system's temporary folder")
    parser.add_argument("--life", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.life:
        anyio.run(live, options)
        return 0
    rows, targets = {}, []
    for tokens in map(int, options.tokens.split(",")):
        rows[f"{tokens} tokens"], times = measured(options, tokens)
        if tokens >= SPEEDUP_TOKENS and options.model != "nano":
            targets.append(Target(f"share of the prefill's time at {tokens} tokens", 1 / times, 1 / SPEEDUP))
    title = f"Time to the next token after a restart, {options.model}, {options.bits} bits"
    return publish(Report(title, "as the columns say", rows, tuple(targets), ("g4agent", "torch")), options)


if __name__ == "__main__":
    sys.exit(main())
