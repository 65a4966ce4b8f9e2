"""`decode_attention` by the Triton kernels: what they are given, and what they give back.

Queries are rotated once, not the keys; every program of `separate_kernel` or `value_only_kernel` reads some pages for
one KV head (split-K), and `reduce_kernel` puts the splits together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from g4agent_torch.turboquant.formats import LayerFormat, ValueOnly
from g4agent_torch.turboquant.gpu.plan import pair_tables, plan
from g4agent_torch.turboquant.layout import PAGE_TOKENS
from g4agent_torch.turboquant.partial import Partial
from g4agent_torch.turboquant.rotation import Rotation

LOG2_E: Final = math.log2(math.e)
PROGRAMS_PER_PROCESSOR: Final = 2
"""Programs for which pages are split, per streaming multiprocessor: enough to have loads and products overlap."""
INTERPRETED_PROGRAMS: Final = 6
"""The same for all of Triton's interpreter, which runs them one after the other."""
ROTARY_SIZES: Final = (32, 64, 128)
"""Rotary dimensions for which the kernel rebuilds keys."""
REDUCED: Final = 128
"""Coordinates of one program of `reduce_kernel`."""


@dataclass(slots=True)
class _Table:
    """The addresses of a layer's pages where the kernel can read them."""

    host: list[int] = field(default_factory=list)
    device: Tensor | None = None


@dataclass(slots=True)
class _Rope:
    """What brings the rotary part of coded values to keys; see `value_only_kernel`."""

    basis: Tensor
    within: Tensor
    first_position: int
    starts: Tensor


_tables: WeakKeyDictionary[LayerFormat, _Table] = WeakKeyDictionary()
_ropes: WeakKeyDictionary[ValueOnly, dict[tuple[torch.device, torch.dtype], _Rope]] = WeakKeyDictionary()


def supports(layer: LayerFormat) -> bool:
    """Whether the kernels can read this layer's pages: at any rates, but not with a centre that positions turn.

    Such a centre comes with a call, not with a layer, so `attention.py` keeps those calls to itself.
    """
    rebuilds = layer.value_only is None or layer.streams[1].size in ROTARY_SIZES
    return rebuilds and layer.tokens == PAGE_TOKENS


def decode_attention(
    query: Tensor, pages: Sequence[Tensor], layer: LayerFormat, first_position: int, kind: torch.dtype = torch.float16
) -> Partial:
    """See `attention.decode_attention`; `kind` is what tensor cores multiply, float32 for exact comparisons."""
    first, second = layer.streams
    forward, inverse = _matrix(first.rotation, query.device), _matrix(second.rotation, query.device).T
    if (shared := layer.value_only) is None:
        out, lse = _attend((query * LOG2_E) @ forward, None, pages, layer, first_position, kind)
        return Partial(out @ inverse, lse)
    scaled = query * (shared.key_norm * LOG2_E)
    turned = query[..., shared.rotary] * LOG2_E
    merged, lse = _attend(scaled[..., shared.rest] @ forward, turned, pages, layer, first_position, kind)
    rest, rotary = merged.split([first.size, second.size], -1)
    out = torch.empty_like(query)
    out[..., shared.rest], out[..., shared.rotary] = rest @ forward.T, rotary @ inverse
    return Partial(out, lse)


def _attend(
    query: Tensor,
    turned: Tensor | None,
    pages: Sequence[Tensor],
    layer: LayerFormat,
    first_position: int,
    kind: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Attention in the rotated basis.

    Args:
        query: Float32 [KV, N, size of the first stream], rotated like it, times log2 e.
        turned: For value-only layers, the queries' rotary dimensions [KV, N, rotary_dim]; not rotated.
        pages: See `decode_attention`; so the rest.
        layer: Format.
        first_position: Of the first page.
        kind: Of products.

    Returns:
        Outputs [KV, N, size of a value], rotated like the streams they come from, and the log-sum-exp [KV, N].
    """
    from g4agent_torch.turboquant.gpu.kernels.separate import separate_kernel
    from g4agent_torch.turboquant.gpu.kernels.value_only import value_only_kernel

    heads, rows, size = query.shape
    if turned is not None:
        size += turned.shape[-1]
    device, made = query.device, plan(layer, rows, kind)
    groups = -(-rows // made.rows)
    splits = _splits(len(pages), heads * groups, device)
    parts = torch.empty(splits, heads, rows, size, device=device)
    lses = torch.empty(splits, heads, rows, device=device)
    grid = (splits, heads, groups)
    table, levels = _addresses(pages, layer), pair_tables(layer.rates[0], kind, device)
    constants = {**made.constants, **made.options}
    coded = query.to(kind).contiguous()
    if turned is None:
        of_values = pair_tables(layer.rates[1], kind, device)
        separate_kernel[grid](table, coded, *levels, *of_values, parts, lses, len(pages), rows, **constants)
    else:
        rope = _rope(layer, first_position, len(pages), device, kind)
        ropes = rope.basis, rope.within, rope.starts
        value_only_kernel[grid](
            table, coded, turned.contiguous(), *levels, *ropes, parts, lses, len(pages), rows, **constants
        )
    return _reduce(parts, lses)


def _reduce(parts: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
    from g4agent_torch.turboquant.gpu.kernels.reduce import reduce_kernel

    splits, heads, rows, size = parts.shape
    out, lse = parts.new_empty(heads, rows, size), lses.new_empty(heads, rows)
    wide = 1 << (splits - 1).bit_length()
    grid = (heads * rows, -(-size // REDUCED))
    reduce_kernel[grid](
        parts, lses, out, lse, splits, heads * rows, SPLITS=wide, SIZE=size, COUNT=REDUCED, enable_fp_fusion=True
    )
    return out, lse


def _splits(pages: int, streams: int, device: torch.device) -> int:
    """Parts of the pages for each of `streams` heads and groups of rows. A prompt's many rows are programs enough, and
    the outputs of all parts are held."""
    return min(pages, max(1, _programs(device) // streams))


def _programs(device: torch.device) -> int:
    if device.type != "cuda":
        return INTERPRETED_PROGRAMS
    return PROGRAMS_PER_PROCESSOR * torch.cuda.get_device_properties(device).multi_processor_count


@cache
def _matrix(rotation: Rotation, device: torch.device) -> Tensor:
    return rotation.matrix.to(device)


def _addresses(pages: Sequence[Tensor], layer: LayerFormat) -> Tensor:
    """Int64 [pages] on the pages' device. Copied only when it changes: mostly once per page, not once per token."""
    table = _tables.setdefault(layer, _Table())
    host = [page.data_ptr() for page in pages]
    if table.device is None or table.device.device != pages[0].device or host != table.host[: len(host)]:
        assert all(address % 16 == 0 for address in host), "pages must begin at multiples of 16 bytes"
        table.host, table.device = host, torch.tensor(host, dtype=torch.int64, device=pages[0].device)
    return table.device


def _rope(layer: LayerFormat, first_position: int, pages: int, device: torch.device, kind: torch.dtype) -> _Rope:
    shared = layer.value_only
    assert shared is not None
    ropes = _ropes.setdefault(shared, {})
    rope = ropes.get((device, kind))
    if rope is None or rope.first_position != first_position or len(rope.starts) < pages:
        room = 1 << (pages - 1).bit_length()
        positions = first_position + torch.arange(room) * layer.tokens
        starts = _angles(positions, shared.frequencies).to(device, torch.float32)
        within = _angles(torch.arange(layer.tokens), shared.frequencies).to(device, kind)
        basis = layer.streams[1].rotation.matrix.to(device) * shared.key_norm[shared.rotary][:, None]
        rope = ropes[device, kind] = _Rope(basis.to(kind).contiguous(), within, first_position, starts)
    return rope


def _angles(positions: Tensor, frequencies: Tensor) -> Tensor:
    """Cosines and sines, float64 [positions, 2, pairs]."""
    angle = positions[:, None] * frequencies.double().cpu()
    return torch.stack([angle.cos(), angle.sin()], 1).contiguous()
