"""Attention of one new token over a long compressed cache, against PyTorch's over the same cache in bfloat16.

One layer, one token, one thread, everything in one process: each round runs all contenders, in an order of its own, and
each figure is the median of the rounds' processor times, so another job on the machine disturbs both sides alike. The
cache is random.

    python benchmarks/decode_attention.py [--tokens 32768 131072] [--rounds 7] [--shapes E4B 31B] [--deviation 1]
                                          [--json] [--check]

`sdpa` is `scaled_dot_product_attention` with the query heads that share a KV head packed as rows of one matrix, the
fastest way to call it; `enable_gqa` is how transformers calls it for heads of up to 256. Ours reads the packed codes
(docstring of `g4agent_torch/turboquant/layout.py`) in the way that `g4agent doctor` names. 31B keeps V only and
rebuilds K; `31B K+V` is the same shape with both stored. Our pages lie in the system's huge pages, as in the product
(`turboquant/slabs.py`); `small pages` is the same cache in memory as it comes. `torch` is one as it is written where
there is no kernel, read by `turboquant/table_attention.py`.

Scores are normal, and the time does depend on their deviation: from 2 to 3 on, queries get a second byte where that
matters. `error %` is what the kernel's integers add to the output, relative L2 to `turboquant/reference_attention.py`
over the same codes: the largest at deviations from 0.5 to 8.

PyTorch's kernel is far from what the processor can do, so "times as fast as `sdpa`" is not what compression gains. That
is in `x bf16`, against `_bf16_attention.cpp`: a kernel as much written for the purpose as ours, over the uncompressed
cache in an order and memory pages that suit it. It needs a compiler and AVX512_BF16; elsewhere its columns are empty.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from _bf16_attention import bf16_attention, library
from _pages import whole_pages
from _report import Report, Target, arguments, publish
from torch.nn.functional import scaled_dot_product_attention as sdpa

from g4agent_torch.one_token import pass_of
from g4agent_torch.turboquant import reference_attention
from g4agent_torch.turboquant.attention import as_read_here, decode_attention
from g4agent_torch.turboquant.cache import SINKS
from g4agent_torch.turboquant.formats import LayerFormat, ValueOnly
from g4agent_torch.turboquant.layout import PAGE_TOKENS
from g4agent_torch.turboquant.slabs import Pages, in_huge_pages

TOKENS = (32_768, 131_072)
RATES = ("4", "3.5")
SMALL = f"{RATES[0]} bits, small pages"
DISTINCT_PAGES = 16
"""Pages that are really encoded; the others are copies of them in memory of their own."""
TABLES = {f"{rate} bits, torch": rate for rate in RATES}
TABLES_GOAL = 0.8
"""How many times as fast as `sdpa` the first has to be."""
MAX_ERROR = 0.03
"""What the kernel's integers may add to the output's error, relative L2."""
ERROR_PAGES = 64
DEVIATIONS = (0.5, 1, 1.5, 2, 2.5, 3, 4, 8)
"""Of scores, at which the error is measured."""
PAUSE = 32_768
"""Tokens up to which `enable_gqa` and `torch` are measured as well; the first takes seconds beyond."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One full-attention layer."""

    kv_heads: int
    group: int
    """Query heads that share a KV head."""
    size: int
    rotary_pairs: int = 0
    """Of a layer that keeps V only; 0: keys and values are stored."""
    goal: float = 8.0
    """How many times as fast as `sdpa` the layer has to be."""


SHAPES = {
    "270M": Shape(1, 4, 256),
    "E4B": Shape(2, 4, 512),
    "E2B": Shape(1, 8, 512, goal=6.5),
    "31B": Shape(4, 8, 512, rotary_pairs=64, goal=6.5),
    "31B K+V": Shape(4, 8, 512, goal=6.5),
}


def value_only(size: int, pairs: int) -> ValueOnly:
    rotary = torch.cat([torch.arange(pairs), torch.arange(size // 2, size // 2 + pairs)])
    rest = torch.tensor([i for i in range(size) if i % (size // 2) >= pairs])
    return ValueOnly(torch.ones(size), 1e6 ** (-torch.arange(pairs) * 2 / size), rotary, rest)


def compressed(
    shape: Shape,
    rate: str,
    tokens: int,
    query: torch.Tensor,
    place: Callable[[torch.Tensor], torch.Tensor],
    token_order: bool = False,
) -> Callable[[], object]:
    """A run over a compressed cache, whose pages are copied to where `place` says."""
    shared = value_only(shape.size, shape.rotary_pairs) if shape.rotary_pairs else None
    layer = LayerFormat(shape.kv_heads, shape.size, rate, shared, token_order=token_order)
    layer = as_read_here(layer, query.device)
    distinct = [layer.encode(*torch.randn(2, shape.kv_heads, PAGE_TOKENS, shape.size)) for _ in range(DISTINCT_PAGES)]
    pages = Pages(place(distinct[i % DISTINCT_PAGES]) for i in range(tokens // PAGE_TOKENS))
    return lambda: decode_attention(query, pages, layer, SINKS)


def contenders(shape: Shape, tokens: int, deviation: float) -> dict[str, Callable[[], object]]:
    query = torch.randn(shape.kv_heads, shape.group, shape.size) * deviation * shape.size**-0.5
    keys, values = torch.randn(2, 1, shape.kv_heads, tokens, shape.size, dtype=torch.bfloat16)
    packed = query[None].bfloat16()
    apart = packed.reshape(1, -1, 1, shape.size)
    runs: dict[str, Callable[[], object]] = {"sdpa": lambda: sdpa(packed, keys, values, scale=1.0)}
    if tokens <= PAUSE:
        runs["enable_gqa"] = lambda: sdpa(apart, keys, values, scale=1.0, enable_gqa=True)
    if (bf16 := bf16_attention(packed[0], keys[0], values[0])) is not None:
        runs["bf16 kernel"] = bf16
    runs |= {f"{rate} bits": compressed(shape, rate, tokens, query, in_huge_pages) for rate in RATES}
    runs[SMALL] = compressed(shape, RATES[0], tokens, query, torch.Tensor.clone)
    if tokens <= PAUSE:
        tables = {name: compressed(shape, rate, tokens, query, in_huge_pages, True) for name, rate in TABLES.items()}
        runs |= {name: in_a_pass(run) for name, run in tables.items()}
    return runs


def in_a_pass(run: Callable[[], object]) -> Callable[[], object]:
    """As in the model, where a pass of one token multiplies without oneDNN."""

    def wrapped() -> object:
        with pass_of(1):
            return run()

    return wrapped


def measure(shape: Shape, tokens: int, rounds: int, deviation: float) -> dict[str, float]:
    """Median processor time of each contender in ms."""
    runs = contenders(shape, tokens, deviation)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    order = random.Random(0)
    for _ in range(rounds):
        for name in order.sample(list(runs), len(runs)):  # what ran before leaves the processor's caches warm or cold
            before = time.thread_time()
            runs[name]()
            times[name].append(1000 * (time.thread_time() - before))
    return {name: statistics.median(figures) for name, figures in times.items()}


def added_error(shape: Shape, rate: str) -> float:
    """What the kernel's integers add to the error of the codes, relative L2: the most at any deviation."""
    shared = value_only(shape.size, shape.rotary_pairs) if shape.rotary_pairs else None
    layer = as_read_here(LayerFormat(shape.kv_heads, shape.size, rate, shared), torch.device("cpu"))
    pages = [layer.encode(*torch.randn(2, shape.kv_heads, PAGE_TOKENS, shape.size)) for _ in range(ERROR_PAGES)]
    errors = []
    for deviation in DEVIATIONS:
        query = torch.randn(shape.kv_heads, shape.group, shape.size) * deviation * shape.size**-0.5
        exact = reference_attention.decode_attention(query, pages, layer, SINKS).out
        errors.append(((decode_attention(query, pages, layer, SINKS).out - exact).norm() / exact.norm()).item())
    return max(errors)


def report(shapes: list[str], lengths: list[int], rounds: int, deviation: float) -> Report:
    rows, targets = {}, []
    for name in shapes:
        errors = {rate: added_error(SHAPES[name], rate) for rate in RATES}
        targets += [Target(f"{name}, {rate} bits: error that integers add", errors[rate], MAX_ERROR) for rate in RATES]
        for tokens in lengths:
            figures = measure(SHAPES[name], tokens, rounds, deviation)
            row: dict[str, float | None] = {
                f"{run} ms": figures.get(run) for run in ("sdpa", "enable_gqa", "bf16 kernel")
            }
            for rate in RATES:
                row[f"{rate} bits ms"] = figures[f"{rate} bits"]
            row |= {f"{SMALL} ms": figures[SMALL], **{f"{name} ms": figures.get(name) for name in TABLES}}
            for rate in RATES:
                row[f"x at {rate}"] = figures["sdpa"] / figures[f"{rate} bits"]
                share, goal = figures[f"{rate} bits"] / figures["sdpa"], SHAPES[name].goal
                targets.append(Target(f"{name}, {tokens} tokens, {rate} bits: ms over sdpa's", share, 1 / goal))
            if (tables := next(iter(TABLES))) in figures:
                share = figures[tables] / figures["sdpa"]
                targets.append(Target(f"{name}, {tokens} tokens, {tables}: ms over sdpa's", share, 1 / TABLES_GOAL))
            bf16 = figures.get("bf16 kernel")
            for rate in RATES:
                row[f"x bf16 at {rate}"] = bf16 and bf16 / figures[f"{rate} bits"]
            row |= {f"error % at {rate}": 100 * errors[rate] for rate in RATES}
            rows[f"{name}, {tokens / 1024:g}K tokens"] = row
    title = "Attention of one token over a layer's cache"
    if library() is None:
        title += "; no bf16 kernel here, which needs a C++ compiler and AVX512_BF16"
    return Report(title, "CPU ms, 1 thread", rows, tuple(targets), ("g4agent", "torch"))


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--tokens", type=whole_pages, nargs="+", default=list(TOKENS), help="lengths, multiples of 128")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES), help="layers to measure")
    parser.add_argument("--rounds", type=int, default=7, help="runs per figure (default: 7)")
    parser.add_argument("--deviation", type=float, default=1, help="of the scores in timed runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return publish(report(options.shapes, options.tokens, options.rounds, options.deviation), options)


if __name__ == "__main__":
    sys.exit(main())
