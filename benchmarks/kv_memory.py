"""What a long context costs in memory: bytes of the global layers' keys and values, counted from their storages.

    python benchmarks/kv_memory.py [--tokens 262144] [--peer-tokens 512] [--json] [--check]

The shape is that of Gemma 4 31B: 10 global layers, all alike, of 4 KV heads of 512. One layer of ours is filled with
the whole context (a few pages encoded, the others copies in memory of their own) and counted with its full-precision
start and tail; the peers, which are slow, are filled with two shorter ones, and what a further token costs is
multiplied. The sliding layers' windows are left out: they do not grow with the context.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from _kv_peers import PEERS, storage_bytes
from _report import Report, Target, arguments, publish

from g4agent_torch.kv import GrowingLayer
from g4agent_torch.turboquant.cache import PagedLayer
from g4agent_torch.turboquant.codec import RATES
from g4agent_torch.turboquant.formats import LayerFormat, ValueOnly
from g4agent_torch.turboquant.slabs import in_huge_pages

TOKENS = 262_144
LAYERS, HEADS, SIZE, PAIRS = 10, 4, 512, 64
CHUNK = 256
ENCODED = 2304
GIGABYTE = 1e9
LIMIT = 2.75
"""GB at 4 bits and 256K tokens."""


def value_only() -> ValueOnly:
    rotary = torch.cat([torch.arange(PAIRS), torch.arange(SIZE // 2, SIZE // 2 + PAIRS)])
    rest = torch.tensor([i for i in range(SIZE) if i % (SIZE // 2) >= PAIRS])
    return ValueOnly(torch.ones(SIZE), 1e6 ** (-torch.arange(PAIRS) * 2 / SIZE), rotary, rest)


def filled(layer: Any, tokens: int) -> int:
    """Bytes of a layer after as many tokens."""
    for start in range(0, tokens, CHUNK):
        states = torch.randn(1, HEADS, min(CHUNK, tokens - start), SIZE, dtype=torch.bfloat16)
        layer.update(states, states.clone())
    return storage_bytes(layer)


def paged(layer: LayerFormat, tokens: int) -> int:
    """Bytes of a compressed layer after as many tokens."""
    paged = PagedLayer(layer)
    filled(paged, min(tokens, ENCODED))
    encoded = list(paged.pages)
    while len(paged.pages) < paged.coded_pages(tokens - 1):
        paged.pages.append(in_huge_pages(encoded[len(paged.pages) % len(encoded)]))
    return storage_bytes(paged)


def row(layer_bytes: float, tokens: int) -> dict[str, float | None]:
    return {"B/token": LAYERS * layer_bytes / tokens, "GB": LAYERS * layer_bytes / GIGABYTE}


def report(tokens: int, peer_tokens: int) -> Report:
    exact = GrowingLayer()
    filled(exact, CHUNK)
    assert exact.keys is not None and exact.values is not None
    per_token = storage_bytes(exact.keys, exact.values) / exact.keys.shape[2]
    rows = {"bfloat16": row(per_token * tokens, tokens)}
    for rate in RATES:
        for name, shared in (("V only", value_only()), ("K and V", None)):
            layer = LayerFormat(HEADS, SIZE, rate, shared)
            rows[f"g4agent, {rate} bits, {name}"] = row(paged(layer, tokens), tokens)
    for name, make in PEERS.items():
        shorter, longer = (filled(make(4), length) for length in (peer_tokens, 2 * peer_tokens))
        rows[f"{name}, bits=4"] = row((longer - shorter) / peer_tokens * tokens, tokens)
    gigabytes = rows["g4agent, 4 bits, V only"]["GB"]
    assert gigabytes is not None
    target = Target(f"GB at 4 bits, {tokens} tokens", gigabytes, LIMIT * tokens / TOKENS)
    title = f"Keys and values of Gemma 4 31B's global layers, {tokens} tokens"
    return Report(title, "as the columns say", rows, (target,), ("g4agent", "torch", *PEERS))


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--tokens", type=int, default=TOKENS, help="length of the context")
    parser.add_argument("--peer-tokens", type=int, default=512, help="tokens that measure what one costs a peer")
    options = parser.parse_args()
    return publish(report(options.tokens, options.peer_tokens), options)


if __name__ == "__main__":
    sys.exit(main())
