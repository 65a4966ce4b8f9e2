"""Rows of token ids with a mark on what the model learns to say, written to shards by a process of its own."""

from __future__ import annotations

import argparse
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from training import coding, generic, retail, tokenizer
from training.dialogue import Dialogue
from training.words import Split

RUNS = Path(__file__).parent / "runs"
ROWS = 128
"""Rows of a shard."""
LENGTH = 2048
LEARN = 32_768
"""Bit of a stored id that says: the model learns to say this one."""
EARLY_SHARDS = 5
"""Shards that mostly teach copying."""


def draw(rng: random.Random, split: Split, progress: float) -> Dialogue:
    """A dialogue of one of the domains; early on mostly short copying ones."""
    kind = rng.random()
    if progress < 0.5:
        if kind < 0.4:
            return generic.copying(rng, split)
        if kind < 0.7:
            return generic.dialogue(rng, split)
        kind = rng.random()
    if kind < 0.08:
        return generic.copying(rng, split)
    if kind < 0.22:
        return generic.picking(rng, split)
    if kind < 0.5:
        return generic.dialogue(rng, split)
    if kind < 0.84:
        return retail.dialogue(rng, split, turns=rng.choice([1, 2, 2, 3]))
    return coding.dialogue(rng, split, turns=rng.choice([1, 2, 3]))


def encode(tokens: Tokenizer, talk: Dialogue) -> NDArray[np.uint16]:
    """Ids, those that the model says marked."""
    ids: list[int] = []
    for text, said in talk.pieces:
        encoded = tokens.encode(text, add_special_tokens=False).ids
        ids += [id | LEARN for id in encoded] if said else encoded
    return np.array(ids, dtype=np.uint16)


def block(tokens: Tokenizer, rng: random.Random, progress: float, counts: Counter[str]) -> NDArray[np.uint16]:
    """Rows, each filled with whole dialogues, the fullest row that still has room first."""
    rows: list[list[NDArray[np.uint16]]] = [[] for _ in range(ROWS)]
    room = [LENGTH] * ROWS
    misses = 0
    while misses < 60:
        ids = encode(tokens, draw(rng, "train", progress))
        counts["dialogues"] += 1
        if len(ids) > LENGTH:
            counts["too long"] += 1
            continue
        fitting = [index for index in range(ROWS) if room[index] >= len(ids)]
        if not fitting:
            misses += 1
            continue
        best = min(fitting, key=room.__getitem__)
        rows[best].append(ids)
        room[best] -= len(ids)
    packed = np.zeros((ROWS, LENGTH), dtype=np.uint16)
    for index, parts in enumerate(rows):
        rng.shuffle(parts)
        joined = np.concatenate(parts)
        packed[index, : len(joined)] = joined
    return packed[np.random.default_rng(rng.randrange(2**32)).permutation(ROWS)]


def write(folder: Path, seed: int, shards: int) -> None:
    """Writes `shard-NUMBER.npy`; one that exists is kept."""
    tokens = tokenizer.load(folder)
    for number in range(shards):
        file = folder / f"shard-{number:03}.npy"
        if file.exists():
            continue
        counts: Counter[str] = Counter()
        rows = block(tokens, random.Random(f"{seed} {number}"), 0.0 if number < EARLY_SHARDS else 1.0, counts)
        temporary = file.with_suffix(".part")
        with temporary.open("wb") as stream:
            np.save(stream, rows)
        temporary.replace(file)
        filled, learned = float((rows > 0).mean()), float((rows >= LEARN).mean())
        print(f"{file.name} filled {filled:.2f} learned {learned:.3f} {dict(counts)}", flush=True)


def batches(folder: Path, size: int, step: int) -> Iterator[NDArray[np.uint16]]:
    """Batches from the given step on, shard after shard; waits for a shard that is still being written."""
    per_shard = ROWS // size
    while True:
        file = folder / f"shard-{step // per_shard:03}.npy"
        while not file.exists():
            time.sleep(0.5)
        rows = np.load(file)
        for start in range(step % per_shard * size, per_shard * size, size):
            yield rows[start : start + size]
            step += 1


def main() -> None:
    """Writes the tokenizer if it is missing, then shards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shards", type=int, default=120)
    parser.add_argument("--folder", type=Path, default=RUNS)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if not (arguments.folder / "tokenizer.json").exists():
        tokenizer.save(tokenizer.learn(tokenizer.corpus(arguments.seed, 6000)), arguments.folder)
    os.nice(5)
    write(arguments.folder, arguments.seed, arguments.shards)


if __name__ == "__main__":
    main()
