"""What the attention kernels are compiled for: a layer's format as compile-time constants, and sizes of tiles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor

from g4agent_torch.turboquant import codebooks
from g4agent_torch.turboquant.codebooks import Codebook
from g4agent_torch.turboquant.codec import Codec, Scale, codec
from g4agent_torch.turboquant.formats import LayerFormat
from g4agent_torch.turboquant.layout import PAGE_TOKENS, Order

Book: TypeAlias = tuple[int, tuple[float, ...]]
"""Bits of a code, and the coefficients of `polynomial`; none for pair codes."""
Segment: TypeAlias = tuple[int, int, Book, int]
"""First byte within a KV head, units, codebook, first slot within the stream."""
HALF_TERMS: Final = {5: 6, 4: 4, 3: 3}
"""Coefficients for levels in half precision, per bits: their error adds less than 0.02 % to that of the codes; with
the rounding of halves, less than 0.03 %."""
FLOAT_TERMS: Final = {5: 12, 4: 8, 3: 4}
"""The same for single precision, as near as it gets: for 5 bits, more would be large and cancel."""
MAX_ROWS: Final = 16
"""Queries of one program at most."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One compiled kernel, and how it is launched."""

    constants: dict[str, Any]
    rows: int
    """Queries of a program."""
    warps: int

    @property
    def options(self) -> dict[str, Any]:
        """What Triton is told besides."""
        return {"num_warps": self.warps, "num_stages": 2, "enable_fp_fusion": True}


def plan(layer: LayerFormat, rows: int, kind: torch.dtype) -> Plan:
    """The plan for `rows` queries per KV head.

    Args:
        layer: Format of the layer.
        rows: N.
        kind: What tensor cores multiply: half precision, or float32 for exact comparisons.
    """
    import triton.language as tl

    first, second = layer.streams
    first_segments, second_segments = segments(first, 0, kind), segments(second, first.stream_bytes(layer.tokens), kind)
    first_scales = sum(first.part_bytes(layer.tokens)[:-1])
    second_scales = first.stream_bytes(layer.tokens) + sum(second.part_bytes(layer.tokens)[:-1])
    count = _count(max(first_segments[0][1], second_segments[0][1]))
    rows = min(MAX_ROWS, max(8, 1 << (rows - 1).bit_length()))
    shared = {
        "HEAD_BYTES": layer.head_bytes,
        "ROWS": rows,
        "COUNT": count,
        "PAGE": layer.tokens,
        "TYPE": tl.float32 if kind == torch.float32 else tl.float16,
    }
    if layer.value_only is None:
        sums = _sums(second_segments, count)
        separate = {"KEYS": first_segments, "VALUES": second_segments, "SIZE": layer.head_dim, "SUMS": sums}
        scales = {"KEY_SCALES": first_scales, "VALUE_SCALES": second_scales}
        return Plan({**separate, **scales, "TILE": 128, **shared}, rows, 4)
    sums_of_both = _sums(first_segments, count) + _sums(second_segments, count)
    value_only = {"REST": first_segments, "ROTARY": second_segments, "REST_SIZE": first.size, "SUMS": sums_of_both}
    scales = {"REST_SCALES": first_scales, "ROTARY_SCALES": second_scales, "PAIRS": second.size // 2}
    return Plan({**value_only, **scales, "TILE": 64, **shared}, rows, 4)


def segments(stream: Codec, start: int, kind: torch.dtype) -> tuple[Segment, Segment]:
    """Main and tail of a stream that begins at byte `start`; one that is not there has no units."""
    made: list[Segment] = []
    for segment, size in zip(stream.segments, stream.part_bytes(PAGE_TOKENS), strict=False):
        made.append((start, segment.units, book(segment.codebook, kind), segment.start))
        start += size
    if len(made) == 1:
        made.insert(0, (start, 0, made[0][2], 0))
    main, tail = made
    return main, tail


def _sums(parts: tuple[Segment, Segment], count: int) -> tuple[int, int]:
    """Accumulators of a stream's main and tail."""
    dims = [1 if terms else 2 for _, _, (_, terms), _ in parts]
    return math.ceil(parts[0][1] / count) * dims[0], dims[1]


def _count(units: int) -> int:
    """Units of a tile."""
    return max(16, min(64, 1 << (units - 1).bit_length()))


def book(codebook: Codebook, kind: torch.dtype) -> Book:
    """How the kernels decode a codebook."""
    if codebook.dims == 2:
        return codebook.bits, ()
    terms = FLOAT_TERMS if kind == torch.float32 else HALF_TERMS
    return codebook.bits, polynomial(codebook.bits, terms[codebook.bits])


@cache
def polynomial(bits: int, terms: int) -> tuple[float, ...]:
    """Coefficients of x, x³, x⁵, ... that give the scalar levels for x = (code − middle) / (codes / 2).

    Least squares, with each level weighted by how often normal data has it.
    """
    levels = codebooks.scalar(bits).levels[:, 0].double().cpu()
    half = len(levels) / 2
    x = (torch.arange(len(levels), dtype=torch.float64) + 0.5 - half) / half
    edges = torch.cat([torch.tensor([-torch.inf]), (levels[1:] + levels[:-1]) / 2, torch.tensor([torch.inf])])
    weights = torch.erf(edges.double() / math.sqrt(2)).diff().sqrt()[:, None]
    powers = torch.stack([x ** (2 * i + 1) for i in range(terms)], 1)
    return tuple(torch.linalg.lstsq(powers * weights, levels[:, None] * weights).solution[:, 0].tolist())


@cache
def pair_tables(rate: str, kind: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Levels of a rate's main and tail, both coordinates in one word: int32 [codes] of halves or int64 of floats.

    For scalar codes they mean nothing and are not read.
    """
    main, tail = (segment.codebook.levels for segment in codec(64, rate, Scale.NORM, Order.KEY).segments)
    word = torch.int64 if kind == torch.float32 else torch.int32
    if main.shape[1] == 1:
        return torch.zeros(1, dtype=word, device=device), torch.zeros(1, dtype=word, device=device)
    made = [levels.to(device, kind).contiguous().view(word)[:, 0].contiguous() for levels in (main, tail)]
    return made[0], made[1]
