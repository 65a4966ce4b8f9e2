"""What a compressed cache costs in quality, on real weights: KL divergence, top-1 agreement, perplexity, needles.

    python benchmarks/kv_quality.py [--model gemma-3-270m smollm2-135m] [--caches NAME ...] [--quick]
                                    [--sequences 8] [--length 4096] [--needle-tokens 1024 2048 4096 7680]
                                    [--seeds 2] [--by-layer] [--kv-bits BITS ...] [--results FILE] [--json] [--check]

The cache is quantised as it decodes: what a token reads depends on its position alone (docstring of
`g4agent_torch/turboquant/cache.py`), so a prompt in chunks gives what token by token gives.
Every token behind the first 16 and before the last 128 to 255 is read as codes, and errors flow into later keys.

`KL` and `top-1` compare next-token distributions with those of the same weights and a full-precision cache, `ppl +%`
is by how much the perplexity is higher; each sequence is `--length` tokens of `_prose.py`, one prediction in `STRIDE`
is scored. A needle is a sentence in that prose, at one of five depths, that ends with a five-digit number; at the end
each is begun again, and found if every digit is the model's first choice. Only needles that full precision finds count
(`of`).

`--by-layer` adds a row for each full-attention layer and rate of ours, with codes in that layer alone: which layers
cost what. `--kv-bits 3.5,6-8=4` adds a row for bits of single layers, as `kv_bits` takes them; name the one `--model`.

`--results` keeps finished parts in a file and goes on from it. Bits count scales and offsets as 16-bit numbers.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from _kv_codecs import DecodedStore, OneLayerStore, as_they_are, min_max, prod, transformers_layer
from _prose import paragraphs
from _real_models import MODELS, load
from _report import Report, Target, arguments, publish
from torch import Tensor

from g4agent_torch.kv import DenseKVStore, KVCache
from g4agent_torch.turboquant.codec import RATES
from g4agent_torch.turboquant.formats import layer_formats
from g4agent_torch.turboquant.store import TurboQuantKVStore

STRIDE = 4
CHUNK = 1024
PART = 128
"""Predictions scored at a time: a row of Gemma's logits is a megabyte."""
DEPTHS = (0.1, 0.3, 0.5, 0.7, 0.9)
NEEDLES = (
    "The secret code of the lighthouse in Arvika is",
    "My grandmother wrote on the jar of plum jam the number",
    "Behind the blue bicycle shed the twins buried box number",
    "The oldest tortoise in the Bodmin zoo carries the tag",
    "Captain Hobart's parrot repeats all day the number",
    "On the ticket for the night train to Cuenca stood seat",
)
LIMITS = {"4": 1.005, "3.5": 1.01, "2.5": 1.05}
"""Perplexity ratio."""
PEERS = {"min-max 4 bits": "4", "prod 4 bits": "4", "quanto 4 bits": "4", "hqq 4 bits": "4"}
PEERS |= {"quanto 2 bits": "2.5", "hqq 2 bits": "2.5"}
"""The rate of ours that is to be no worse; none of them takes fewer bits than it."""
QUICK = {
    "model": ["smollm2-135m"],
    "sequences": 2,
    "length": 2048,
    "needle_tokens": [],
    "caches": ["4 bits", "min-max 4 bits"],
}

Store = Callable[[Any], Any]
CACHES: dict[str, tuple[Store, Callable[[int], float]]] = {
    **{
        f"{rate} bits": (lambda model, r=rate: TurboQuantKVStore(model, r), lambda d, r=rate: float(r))
        for rate in RATES
    },
    **{
        f"{rate} bits, keys as they are": (
            lambda model, r=rate: DecodedStore(model, as_they_are(r)),
            lambda d, r=rate: float(r),
        )
        for rate in RATES
    },
    "prod 4 bits": (lambda model: DecodedStore(model, prod), lambda d: 4 + 32 / d),
    **{
        f"min-max {b} bits": (lambda model, b=b: DecodedStore(model, min_max(b)), lambda d, b=b: b + 32 / d)
        for b in (4, 3)
    },
    **{
        f"{backend} {b} bits": (
            lambda model, k=backend, b=b: DecodedStore(model, transformers_layer(k, b)),
            lambda d, b=b: b + 0.5,
        )
        for backend, b in (("quanto", 4), ("quanto", 2), ("hqq", 4), ("hqq", 2))
    },
}
"""Name → store of caches for a text model, and bits per coordinate at a head size."""


def hidden_states(model: Any, kv: KVCache, ids: Tensor, chunk: int = CHUNK) -> Tensor:
    """Last hidden states [T, hidden] of ids [T], with the cache in use from the first token on."""
    text = model.get_decoder()
    parts = [text(part[None], past_key_values=kv.layers).last_hidden_state[0] for part in ids.split(chunk)]
    return torch.cat(parts)


def divergence(model: Any, exact: Tensor, compressed: Tensor, ids: Tensor) -> dict[str, float]:
    """Sums over the scored predictions, from hidden states [T, hidden] of both."""
    sums = dict.fromkeys(("n", "kl", "top1", "nll", "exact nll"), 0.0)
    for scored in torch.arange(STRIDE - 1, len(ids) - 1, STRIDE).split(PART):
        p, q = (torch.log_softmax(model.lm_head(states[scored]).float(), -1) for states in (exact, compressed))
        target = ids[scored + 1][:, None]
        sums["n"] += len(scored)
        sums["kl"] += (p.exp() * (p - q)).sum().item()
        sums["top1"] += (p.argmax(-1) == q.argmax(-1)).sum().item()
        sums["nll"] -= q.gather(1, target).sum().item()
        sums["exact nll"] -= p.gather(1, target).sum().item()
    return sums


def haystack(tokenizer: Any, blocks: list[str], tokens: int, seed: int) -> tuple[list[int], list[tuple[str, str]]]:
    """Ids of prose with a needle at each depth, and each needle's question and answer."""
    rng = random.Random(seed)
    rng.shuffle(blocks)
    encoded = [tokenizer.encode(block + "\n\n", add_special_tokens=False) for block in blocks]
    needles = [(needle, f" {rng.randrange(10**4, 10**5)}") for needle in rng.sample(NEEDLES, len(DEPTHS))]
    waiting, ids = [(depth * tokens, *needle) for depth, needle in zip(DEPTHS, needles, strict=True)], []
    ids += tokenizer.encode("") if tokenizer.bos_token_id == 2 else []
    for block in encoded:
        while waiting and len(ids) >= waiting[0][0]:
            _, question, answer = waiting.pop(0)
            ids += tokenizer.encode(f"{question}{answer}.\n\n", add_special_tokens=False)
        ids += block[: max(0, tokens - len(ids))]
        if len(ids) >= tokens:
            break
    return ids, needles


def found(model: Any, tokenizer: Any, kv: KVCache, ids: list[int], needles: list[tuple[str, str]]) -> list[bool]:
    """For each needle, whether greedy decoding would write it."""
    hidden_states(model, kv, torch.tensor(ids))
    kv.mark(kv.length)
    hits = []
    for question, answer in needles:
        assert kv.truncate(len(ids)) == len(ids)
        asked = tokenizer.encode(f"\n\n{question}", add_special_tokens=False)
        told = tokenizer.encode(f"\n\n{question}{answer}", add_special_tokens=False)
        states = hidden_states(model, kv, torch.tensor(told))[len(asked) - 1 : -1]
        hits.append(model.lm_head(states).argmax(-1).tolist() == told[len(asked) :])
    return hits


class Results:
    """Finished parts by key, kept in a file of JSON lines if there is one."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        lines = file.read_text().splitlines() if file and file.exists() else []
        self._done: dict[str, Any] = dict(json.loads(line) for line in lines)

    def get(self, *key: Any) -> Any:
        return self._done.get(str(key))

    def put(self, value: Any, *key: Any) -> Any:
        self._done[str(key)] = value
        if self._file:
            with self._file.open("a") as file:
                file.write(json.dumps([str(key), value]) + "\n")
        return value


def sequences(tokenizer: Any, count: int, length: int) -> list[Tensor]:
    ids = tokenizer("\n\n".join(paragraphs()), add_special_tokens=False, return_tensors="pt").input_ids[0]
    start = tokenizer.encode("")[:1] if tokenizer.bos_token_id == 2 else []
    parts = ids[: count * (length - len(start))].view(count, -1)
    return [torch.cat([torch.tensor(start, dtype=ids.dtype), part]) for part in parts]


def measure(name: str, options: Any, results: Results) -> dict[str, dict[str, float | None]]:
    """Rows of one model."""
    model, tokenizer = load(name)
    text, exact_store = model.get_decoder(), DenseKVStore(model.config)
    stores = {cache: CACHES[cache][0](text) for cache in options.caches}
    stores |= {bits: TurboQuantKVStore(text, bits) for bits in options.kv_bits}
    if options.by_layer:
        for rate, layer in product(
            (rate for rate in RATES if f"{rate} bits" in options.caches), layer_formats(text, "4")
        ):
            stores[f"{rate} bits, layer {layer} only"] = OneLayerStore(text, rate, layer)
    for index, ids in enumerate(sequences(tokenizer, options.sequences, options.length)):
        missing = [c for c in stores if results.get(name, c, options.length, index) is None]
        exact = hidden_states(model, exact_store.new(), ids) if missing else None
        for cache in missing:
            assert exact is not None
            sums = divergence(model, exact, hidden_states(model, stores[cache].new(), ids), ids)
            results.put(sums, name, cache, options.length, index)
            print(f"{name}, {cache}, sequence {index}: KL {sums['kl'] / sums['n']:.4f}", file=sys.stderr, flush=True)
    for key, ids, needles in _haystacks(tokenizer, options):
        for cache, store in {"full precision": exact_store, **stores}.items():
            if results.get(name, cache, *key) is None:
                results.put(found(model, tokenizer, store.new(), ids, needles), name, cache, *key)
                print(f"{name}, {cache}, {key}: {results.get(name, cache, *key)}", file=sys.stderr, flush=True)
    size = text.layers[0].self_attn.head_dim
    bits = {cache: mean(float(layer.rate) for layer in stores[cache].formats.values()) for cache in options.kv_bits}
    bits |= {cache: CACHES[cache.partition(", layer")[0]][1](size) for cache in stores if cache not in bits}
    return {f"{name}, {cache}": _row(name, cache, bits[cache], options, results) for cache in stores}


def _haystacks(tokenizer: Any, options: Any) -> Iterator[tuple[tuple[str, int, int], list[int], list[tuple[str, str]]]]:
    for tokens in options.needle_tokens:
        for seed in range(options.seeds):
            yield ("needles", tokens, seed), *haystack(tokenizer, paragraphs(), tokens, seed)


def _row(name: str, cache: str, bits: float, options: Any, results: Results) -> dict[str, float | None]:
    parts = [results.get(name, cache, options.length, index) for index in range(options.sequences)]
    total = {key: sum(part[key] for part in parts) for key in parts[0]}
    n = total["n"]
    row: dict[str, float | None] = {
        "bits": bits,
        "KL x 1000": 1000 * total["kl"] / n,
        "top-1 %": 100 * total["top1"] / n,
        "ppl +%": 100 * math.expm1((total["nll"] - total["exact nll"]) / n),
    }
    if options.needle_tokens:
        keys = [("needles", tokens, seed) for tokens in options.needle_tokens for seed in range(options.seeds)]
        pairs = [
            (exact, hit)
            for key in keys
            for exact, hit in zip(
                results.get(name, "full precision", *key), results.get(name, cache, *key), strict=True
            )
        ]
        row |= {"needles": sum(hit for exact, hit in pairs if exact), "of": sum(exact for exact, _ in pairs)}
    return row


def report(options: Any) -> Report:
    rows: dict[str, dict[str, float | None]] = {}
    results = Results(options.results)
    with torch.inference_mode():
        for name in options.model:
            rows |= measure(name, options, results)
    targets = []
    for name in options.model:
        for rate, limit in LIMITS.items():
            row = rows.get(f"{name}, {rate} bits")
            if row is None:
                continue
            targets.append(Target(f"{name}, {rate} bits: perplexity ratio", 1 + row["ppl +%"] / 100, limit))
            if row.get("of") and rate != "2.5":
                targets.append(Target(f"{name}, {rate} bits: needles lost", row["of"] - row["needles"], 0))  # type: ignore[operator]
            for peer, peers in PEERS.items():
                other = rows.get(f"{name}, {peer}")
                if rate == peers and other is not None:
                    quotient = row["KL x 1000"] / other["KL x 1000"]  # type: ignore[operator]
                    targets.append(Target(f"{name}, {rate} bits: KL, of that of {peer}", quotient, 1))
    title = f"Compressed caches on real weights, {options.sequences} x {options.length} tokens"
    return Report(title, "as the columns say", rows, tuple(targets), ("g4agent", "torch", "transformers"))


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--caches", nargs="+", choices=CACHES, default=list(CACHES), help="what to measure")
    parser.add_argument("--sequences", type=int, default=8, help="pieces of prose")
    parser.add_argument("--length", type=int, default=4096, help="tokens of a piece")
    parser.add_argument("--needle-tokens", type=int, nargs="*", default=[1024, 2048, 4096, 7680])
    parser.add_argument("--seeds", type=int, default=2, help="haystacks of each length")
    parser.add_argument("--by-layer", action="store_true", help="also codes in one layer alone")
    parser.add_argument("--kv-bits", nargs="+", default=[], help="also ours with bits of single layers")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, help="file of finished parts")
    parser.add_argument("--quick", action="store_true", help="one model, 4K tokens, two caches, no needles")
    options = parser.parse_args()
    if options.quick:
        vars(options).update(QUICK)
    torch.set_num_threads(options.threads)
    return publish(report(options), options)


if __name__ == "__main__":
    sys.exit(main())
