"""Runs the Triton kernels in Triton's interpreter and prints how far they are from plain PyTorch, as JSON.

A program of its own: the interpreter is chosen before the kernels are imported, and must not leak into other tests.
With `--all` every shape at every rate, which takes minutes; without, each shape and each rate once.
"""

from __future__ import annotations

import json
import os
import sys
from itertools import product
from pathlib import Path

os.environ |= {"TRITON_INTERPRET": "1", "G4AGENT_KV_KERNEL": "reference"}
sys.path.insert(0, str(Path(__file__).parent))

import torch
from test_tq_native import error, value_only
from torch import Tensor

from g4agent_torch.turboquant.attention import decode_attention
from g4agent_torch.turboquant.cache import SINKS, PagedLayer
from g4agent_torch.turboquant.codec import RATES
from g4agent_torch.turboquant.formats import LayerFormat
from g4agent_torch.turboquant.gpu.decode_attention import decode_attention as triton_attention
from g4agent_torch.turboquant.gpu.decode_attention import supports
from g4agent_torch.turboquant.gpu.encode import encode

SHAPES = {
    "Gemma 3 270M": (1, 256, 4, 0, 3),
    "Gemma 4 E2B": (1, 512, 8, 0, 2),
    "Gemma 4 E4B": (2, 512, 4, 0, 2),
    "Gemma 4 31B": (2, 512, 8, 64, 2),
    "31B, keys too": (2, 512, 8, 0, 2),
    "odd groups, small rotary part": (3, 128, 13, 16, 3),
    "smallest": (1, 32, 1, 0, 1),
    "12 · 2^k": (1, 96, 3, 0, 2),
    "fine keys": (1, 64, 4, 0, 2),
}
"""KV heads, head size, queries per KV head, rotary pairs of a value-only layer, pages."""
ENCODED = {
    "separate": (1, 512, 0),
    "value only": (1, 512, 64),
    "two heads": (2, 64, 0),
    "fine keys": (1, 64, 0),
    "12 · 2^k": (1, 96, 0),
}
"""KV heads, head size, rotary pairs."""

QUICK_ATTENTION = [
    ("Gemma 3 270M", "3.5"),
    ("Gemma 4 E2B", "4"),
    ("Gemma 4 E4B", "2.5"),
    ("Gemma 4 31B", "4"),
    ("odd groups, small rotary part", "3.5"),
    ("odd groups, small rotary part", "2.5"),
    ("smallest", "2.5"),
    ("12 · 2^k", "3.5"),
    ("fine keys", "4"),
]
QUICK_ENCODED = [
    ("value only", "3.5"),
    ("two heads", "4"),
    ("two heads", "3.5"),
    ("fine keys", "4"),
    ("fine keys", "2.5"),
    ("12 · 2^k", "2.5"),
]


def layer_of(heads: int, size: int, pairs: int, rate: str, fine_keys: bool = False) -> LayerFormat:
    return LayerFormat(heads, size, rate, value_only(size, pairs) if pairs else None, fine_keys=fine_keys)


def attention(shape: str, rate: str) -> dict[str, float]:
    """Errors with exact products and with those of tensor cores."""
    heads, size, rows, pairs, pages = SHAPES[shape]
    generator = torch.Generator().manual_seed(0)
    layer = layer_of(heads, size, pairs, rate, shape == "fine keys")
    assert supports(layer)
    keys, values = torch.randn(2, pages, heads, 128, size, generator=generator)
    if not pairs:
        values *= 10 ** torch.randn(pages, heads, 128, 1, generator=generator)  # of all sizes: halves must not overflow
    encoded = [layer.encode(k, v) for k, v in zip(keys, values, strict=True)]
    query = torch.randn(heads, rows, size, generator=generator) / size**0.5
    expected = decode_attention(query, encoded, layer, SINKS)
    found = {}
    for name, kind in (("exact", torch.float32), ("half", torch.float16)):
        got = triton_attention(query, encoded, layer, SINKS, kind)
        found[name] = error(got.out, expected.out)
        found[f"{name} lse"] = (got.lse - expected.lse).abs().max().item()
    return found


def different_bytes(case: str, rate: str) -> int:
    """Bytes of a page that differ; among its vectors are zero, tiny, huge and one-hot ones."""
    heads, size, pairs = ENCODED[case]
    keys, values = torch.randn(2, heads, 128, size, generator=torch.Generator().manual_seed(1))
    for x in (keys, values):
        x[0, 3] = 0
        x[0, 5] = torch.eye(size)[7]
        x[0, 6] *= 1e-3
        x[0, 7] *= 3e4
    layer = layer_of(heads, size, pairs, rate, case == "fine keys")
    return int((layer.encode(keys, values) != encode(keys, values, layer)).sum())


def paged(pairs: int) -> float:
    """Error of a whole layer dispatched to the kernels: sinks, pages, and a masked tail with a part of a page.

    The last positions are asked for; they read one page or two, and some of one another.
    """
    length, asked, size = 430, 40, 128
    generator = torch.Generator().manual_seed(2)
    query = torch.randn(8, asked, size, generator=generator) / 8
    keys, values = torch.randn(2, 1, 2, length, size, generator=generator)
    outs: dict[str, Tensor] = {}
    for choice in ("reference", "triton"):
        os.environ["G4AGENT_KV_KERNEL"] = choice
        layer = PagedLayer(layer_of(2, size, pairs, "4"))
        for part in (slice(0, 300), slice(300, length)):
            layer.update(keys[:, :, part], values[:, :, part])
        assert len(layer.pages) == 2
        outs[choice] = layer.attend(query)
    os.environ["G4AGENT_KV_KERNEL"] = "reference"
    assert not torch.equal(outs["reference"], outs["triton"]), "the kernels did not run"
    return error(outs["triton"], outs["reference"])


def main() -> None:
    torch.set_num_threads(1)
    attended = list(product(SHAPES, RATES)) if "--all" in sys.argv else QUICK_ATTENTION
    encoded = list(product(ENCODED, RATES)) if "--all" in sys.argv else QUICK_ENCODED
    found = {
        "attention": {f"{shape} at {rate}": attention(shape, rate) for shape, rate in attended},
        "encode": {f"{case} at {rate}": different_bytes(case, rate) for case, rate in encoded},
        "paged": {"separate": paged(0), "value only": paged(16)},
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
