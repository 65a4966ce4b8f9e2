"""What the codec loses: relative squared error of decoded vectors, against theory and against peers at their bits.

    python benchmarks/codec.py [--sizes 64 128 256 512] [--vectors 16384] [--json] [--check]

Vectors are normal, and stay so under any rotation: codecs that do not rotate are seen at their best here. `theory` is
Lloyd-Max's distortion for the same codebooks (Max 1960; TurboQuant, arXiv 2504.19874, table of theorem 1 to more
digits): at a finite size a little less is possible. Bits are counted from storages, scales and whatever else a layer
keeps per vector included, at the largest size. The peers' last 128 vectors, which they do not compress, are left out.
"""

from __future__ import annotations

import sys

import torch
from _kv_peers import PEERS, normal, storage_bytes
from _pages import whole_pages
from _report import Report, Target, arguments, publish

from g4agent_torch.turboquant.codec import RATES, Scale, codec
from g4agent_torch.turboquant.layout import PAGE_TOKENS, Order

SIZES = (64, 128, 256, 512)
PERCENT = 100
TAIL = {"4": (0.009501, 0.03455, 16), "3.5": (0.0153, 0.0296, 32), "2.5": (0.0570, 0.1076, 32)}
"""Distortion of the main segment's codebook, of the tail's, and coordinates of the tail."""
SLACK = 1.02
PEER_BITS = (4, 3)
PEER_VECTORS = 2048
UNCOMPRESSED = 128
"""Last vectors that the peers keep as they are."""


def theory(rate: str, size: int) -> float:
    main, tail, width = TAIL[rate]
    return (main * (size - width) + tail * width) / size


def ours(rate: str, size: int, vectors: int) -> tuple[float, float]:
    """Error and bits per coordinate."""
    x = normal(vectors, size).view(-1, PAGE_TOKENS, size)
    made = codec(size, rate, Scale.NORM, Order.KEY)
    streams = made.encode(x)
    return _error(made.decode(streams, PAGE_TOKENS), x), streams.untyped_storage().nbytes() * 8 / x.numel()


def peer(name: str, bits: int, size: int, vectors: int) -> tuple[float, float]:
    """Error over keys and values alike, and bits per coordinate of one more vector."""
    x = normal(1, 1, vectors, size).bfloat16()
    layer, before = PEERS[name](bits), 0
    for start in range(0, vectors, UNCOMPRESSED):
        if start == vectors // 2:
            before = storage_bytes(layer)
        part = x[..., start : start + UNCOMPRESSED, :]
        decoded = layer.update(part, part.clone())
    kept = slice(0, vectors - UNCOMPRESSED)
    error = sum(_error(y[..., kept, :].float(), x[..., kept, :].float()) for y in decoded) / 2
    more = storage_bytes(layer) - before
    return error, more * 8 / (2 * (vectors - vectors // 2) * size)


def _error(decoded: torch.Tensor, x: torch.Tensor) -> float:
    return ((decoded - x).square().sum() / x.square().sum()).item()


def report(sizes: list[int], vectors: int) -> Report:
    rows: dict[str, dict[str, float | None]] = {}
    targets = []
    for rate in RATES:
        rows[f"g4agent, {rate} bits"] = figures = {}
        rows[f"theory, {rate} bits"] = {f"d = {size}": PERCENT * theory(rate, size) for size in sizes}
        for size in sizes:
            error, bits = ours(rate, size, vectors)
            figures |= {f"d = {size}": PERCENT * error, "bits": bits}
            targets.append(Target(f"{rate} bits, d = {size}: error over theory", error / theory(rate, size), SLACK))
            targets.append(Target(f"{rate} bits, d = {size}: bits per coordinate", bits, float(rate)))
    for name in PEERS:
        for bits in PEER_BITS:
            rows[f"{name}, bits={bits}"] = figures = {}
            for size in sizes:
                error, stored = peer(name, bits, size, min(vectors, PEER_VECTORS))
                figures |= {f"d = {size}": PERCENT * error, "bits": stored}
    packages = ("g4agent", "torch", *PEERS)
    return Report(
        "Relative squared error of decoded vectors", "percent; bits per coordinate", rows, tuple(targets), packages
    )


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="coordinates of a vector")
    parser.add_argument("--vectors", type=whole_pages, default=16_384, help="vectors per figure, a multiple of 128")
    options = parser.parse_args()
    return publish(report(options.sizes, options.vectors), options)


if __name__ == "__main__":
    sys.exit(main())
