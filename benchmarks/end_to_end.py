"""A whole model over each cache: what prefill and one more token cost, what is stored, how far predictions move.

    python benchmarks/end_to_end.py [--tokens 4096 16384] [--rounds 16] [--caches NAME ...] [--json] [--check]

Gemma 3 270M (`_real_models.py`) in bfloat16 on one thread, and the same prose for all. Each cache is filled with
`--tokens` tokens in passes of 1024; then the next `--rounds` tokens of the prose are decoded, each by one cache after
the other. `prefill s` and `ms/token` (the median of the rounds) are processor time, so another job on the machine
disturbs all alike. `encode %` is the part of our prefill that goes into codes.

`MB` are the storages of all layers after the prefill, `global MB` those of the 3 of 18 layers that see everything; with
buffers' slack and the full-precision start and tail. `KL x 1000` is the divergence from `DynamicCache`'s distributions
over the decoded tokens: few, so only its order of magnitude counts (`kv_quality.py` measures quality).

`DynamicCache` is transformers' own, with its own choice of attention; `packed heads` is ours at 16 bits. transformers'
quantised cache refuses models with sliding layers: here its quanto layers serve the global ones. The other packages
compress all layers, and keep sliding ones whole.

The head, 262,144 rows, is half of a short session's token. Four rows have the 4-bit cache and another head. `as it
runs` is how the runtime multiplies in passes of one token (`g4agent_torch/one_token.py`): all weights and not the head
alone, and no second copy of them. `prepacked head` is oneDNN's own layout, a second copy of 336 MB. `4-bit head`
is as it runs with `head_bits=4`: 105 MB more, the best tokens scored by the weight. `int4 head` leaves that out. These
three need AVX-512, and are left out elsewhere.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from _heads import Head, int4, prepacked
from _kv_peers import PEERS, storage_bytes
from _prose import paragraphs
from _real_models import load
from _report import Report, Target, arguments, publish
from torch import Tensor
from transformers.cache_utils import (
    Cache,
    DynamicCache,
    DynamicSlidingWindowLayer,
    QuantoQuantizedLayer,
    get_layer_types_and_kwargs,
)

from g4agent_torch.kv import DenseKVStore
from g4agent_torch.one_token import pass_of
from g4agent_torch.output_head import ScreenedHead
from g4agent_torch.turboquant.cache import PAGED, SINKS, PagedLayer
from g4agent_torch.turboquant.codec import RATES
from g4agent_torch.turboquant.formats import LayerFormat
from g4agent_torch.turboquant.layout import PAGE_TOKENS
from g4agent_torch.turboquant.store import TurboQuantKVStore

MODEL = "gemma-3-270m"
TOKENS = (4096, 16_384)
CHUNK = 1024
STOCK = "DynamicCache"
LONG = 16_384
"""Tokens from which 4 bits must be no slower than `DynamicCache`."""
PERCENT = 100
ENCODE_LIMIT = 1.0
"""Percent of the prefill's time."""


class TimedFormat:
    """A layer's format that adds up the time of its encoding."""

    def __init__(self, layer: LayerFormat) -> None:
        self._layer, self.seconds = layer, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)

    def encode(self, keys: Tensor, values: Tensor) -> Tensor:
        before = time.thread_time()
        page = self._layer.encode(keys, values)
        self.seconds += time.thread_time() - before
        return page


@dataclass(slots=True)
class Run:
    """One cache of the model, and what was measured of it."""

    model: Any
    attention: str
    cache: Cache
    head: Head
    one_token_kernel: bool
    prefill: float = 0.0
    encoding: float | None = None
    steps: list[float] = field(default_factory=list)
    divergences: list[float] = field(default_factory=list)

    def fill(self, ids: Tensor) -> None:
        formats = [TimedFormat(layer.format) for layer in self._paged]
        for layer, timed in zip(self._paged, formats, strict=True):
            layer.format = timed  # type: ignore[assignment]
        for part in ids.split(CHUNK):
            self.prefill += self._timed(part)[0]
        for layer, timed in zip(self._paged, formats, strict=True):
            layer.format = timed._layer
        self.encoding = sum(timed.seconds for timed in formats) if formats else None

    def step(self, token: Tensor) -> Tensor:
        """Log-probabilities [vocabulary] after one more token [1]."""
        seconds, logits = self._timed(token)
        self.steps.append(seconds)
        return torch.log_softmax(logits.float(), -1)

    @property
    def _paged(self) -> list[PagedLayer]:
        return [layer for layer in self.cache.layers if isinstance(layer, PagedLayer)]

    def _timed(self, ids: Tensor) -> tuple[float, Tensor]:
        self.model.set_attn_implementation(self.attention)
        with pass_of(len(ids)) if self.one_token_kernel else nullcontext():
            before = time.thread_time()
            states = self.model.get_decoder()(ids[None], past_key_values=self.cache).last_hidden_state[0, -1]
            logits = self.head(states)
            return time.thread_time() - before, logits


def quanto(text: Any) -> Cache:
    """4-bit layers of transformers' quantised cache where everything is seen, its sliding layers elsewhere."""
    layers: list[Any] = []
    for kind, more in zip(*get_layer_types_and_kwargs(text.config), strict=True):
        full = kind == "full_attention"
        layers.append(QuantoQuantizedLayer(nbits=4, axis_key=0, axis_value=0) if full else _sliding(more))
    return Cache(layers=layers)


def _sliding(more: dict[str, Any]) -> DynamicSlidingWindowLayer:
    return DynamicSlidingWindowLayer(**more)


CACHES: dict[str, tuple[str, Callable[[Any], Cache]]] = {
    STOCK: ("sdpa", lambda text: DynamicCache(config=text.config)),
    "packed heads": (PAGED, lambda text: DenseKVStore(text.config).new().layers),
    **{f"{r} bits": (PAGED, lambda text, r=r: TurboQuantKVStore(text, r).new().layers) for r in RATES},  # type: ignore[misc]
    "quanto 4 bits": ("sdpa", quanto),
    **{
        f"{name} 4 bits": ("sdpa", lambda text, make=make: Cache(layers=[make(4) for _ in text.layers]))  # type: ignore[misc]
        for name, make in PEERS.items()
    },
}
"""Name → attention function, and how a cache for a text model is made."""
AS_IT_RUNS = "4 bits, as it runs"
HEADS: dict[str, tuple[Callable[[Tensor], Head] | None, bool]] = {
    AS_IT_RUNS: (None, True),
    "4 bits, prepacked head": (prepacked, False),
    "4 bits, 4-bit head": (ScreenedHead, True),
    "4 bits, int4 head": (int4, True),
}
"""Name → how a head is made of its weight, None: as it is; and whether passes of one token are as the runtime's. Made
for AVX-512: without it the first is as usual, and the others cannot be."""
CACHES |= dict.fromkeys(HEADS, CACHES["4 bits"])


def has_avx512() -> bool:
    """Also in PyTorch's products."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512"


def measure(model: Any, names: list[str], ids: Tensor, tokens: int) -> dict[str, dict[str, float | None]]:
    """Rows of one length: all but the last `tokens` of the ids are decoded one by one."""
    text = model.get_decoder()
    kinds = get_layer_types_and_kwargs(text.config)[0]
    runs = {}
    for name in names:
        (attention, new_cache), (new_head, kernel) = CACHES[name], HEADS.get(name, (None, False))
        head = model.lm_head if new_head is None else new_head(model.lm_head.weight)
        runs[name] = Run(model, attention, new_cache(text), head, kernel)
    rows: dict[str, dict[str, float | None]] = {}
    for name, run in runs.items():
        print(f"{tokens} tokens, {name} ...", file=sys.stderr, flush=True)
        run.fill(ids[:tokens])
        layers = run.cache.layers
        full = [layer for layer, kind in zip(layers, kinds, strict=True) if kind == "full_attention"]
        rows[name] = {
            "prefill s": run.prefill,
            "encode %": None if run.encoding is None else PERCENT * run.encoding / run.prefill,
            "MB": storage_bytes(*layers) / 1e6,
            "global MB": storage_bytes(*full) / 1e6,
        }
    for token in ids[tokens:].split(1):
        exact = runs[STOCK].step(token)
        for name, run in runs.items():
            if name != STOCK:
                run.divergences.append((exact.exp() * (exact - run.step(token))).sum().item())
    for name, run in runs.items():
        rows[name]["ms/token"] = 1000 * statistics.median(run.steps)
        rows[name]["KL x 1000"] = 1000 * statistics.mean(run.divergences) if run.divergences else None
    return rows


def targets(rows: dict[str, dict[str, float | None]], tokens: int) -> list[Target]:
    stock, found = rows[STOCK], []
    for rate in RATES:
        if (row := rows.get(f"{rate} bits")) is None:
            continue
        ratio = {column: (row[column] or 0) / (stock[column] or 1) for column in ("ms/token", "global MB")}
        what = f"{tokens} tokens, {rate} bits"
        exact = SINKS + 2 * PAGE_TOKENS + CHUNK  # tokens that stay in full precision, with their buffer's slack
        found.append(
            Target(f"{what}: global bytes over {STOCK}'s", ratio["global MB"], float(rate) / 16 + exact / tokens)
        )
        found.append(Target(f"{what}: percent of prefill in encoding", row["encode %"] or 0, ENCODE_LIMIT))
        if rate == "4" and tokens >= LONG:
            found.append(Target(f"{what}: time of a token over {STOCK}'s", ratio["ms/token"], 1.0))
    if "4 bits" in rows and AS_IT_RUNS in rows and has_avx512():
        quick, usual = (rows[name]["ms/token"] or 0 for name in (AS_IT_RUNS, "4 bits"))
        found.append(Target(f"{tokens} tokens: {AS_IT_RUNS} over 4 bits", quick / (usual or 1), 1.0))
    return found


def report(names: list[str], lengths: list[int], rounds: int) -> Report:
    names = [STOCK, *(name for name in names if name != STOCK)]
    model, tokenizer = load(MODEL, torch.bfloat16)
    ids = tokenizer("\n\n".join(paragraphs()), return_tensors="pt").input_ids[0]
    rows: dict[str, dict[str, float | None]] = {}
    met: list[Target] = []
    with torch.inference_mode():
        measure(model, names, ids[: CHUNK + 2], CHUNK)  # warms up; also compiles the kernel where there is none
        for tokens in lengths:
            measured = measure(model, names, ids[: tokens + rounds], tokens)
            rows |= {f"{tokens} tokens, {name}": row for name, row in measured.items()}
            met += targets(measured, tokens)
    title = f"Gemma 3 270M with each cache, {rounds} tokens decoded"
    packages = ("g4agent", "torch", "transformers", "optimum-quanto", *PEERS)
    return Report(title, "CPU s and ms, 1 thread; MB; percent", rows, tuple(met), packages)


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=list(TOKENS), help="lengths of the prompt")
    parser.add_argument("--rounds", type=int, default=16, help="tokens decoded behind it")
    possible = [name for name in CACHES if has_avx512() or HEADS.get(name, (None,))[0] is None]
    parser.add_argument("--caches", nargs="+", choices=possible, default=possible, help="what to measure")
    options = parser.parse_args()
    torch.set_num_threads(1)
    return publish(report(options.caches, options.tokens, options.rounds), options)


if __name__ == "__main__":
    sys.exit(main())
