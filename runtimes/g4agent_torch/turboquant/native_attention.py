"""`decode_attention` by the native kernel: what it is given, and what it gives back."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from functools import cache
from typing import Final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from g4agent_torch.turboquant.codec import RATES, Scale, codec
from g4agent_torch.turboquant.formats import LayerFormat, ValueOnly
from g4agent_torch.turboquant.layout import PAGE_TOKENS, TOKEN_BLOCK, Order
from g4agent_torch.turboquant.native import BODIES, Call, Kernel
from g4agent_torch.turboquant.partial import Partial

MAX_SIZE: Final = 1024
ROTARY_SIZES: Final = (32, 64, 128)
"""Rotary dimensions for which the kernel rebuilds keys."""


MAX_MOVES: Final = 8
"""Levels per coordinate that may be rounded the other way."""
MAX_MOVE_ERROR: Final = 0.8
"""Units by which such a level may be off."""


@dataclass(frozen=True, slots=True)
class _Rope:
    """What rebuilds the rotary part of keys within a page; the kernel turns queries to the page's start."""

    table: Tensor
    """Int16 [blocks, pairs, 4, 32]: rows (first from low, first from high, second from low, second from high), where
    low ± high are the last butterflies of the Hadamard transform. Tokens lie as `kernel` registers hold them."""
    unit: float
    frequencies: Tensor


_ropes: WeakKeyDictionary[ValueOnly, _Rope] = WeakKeyDictionary()


def supports(layer: LayerFormat, query: Tensor) -> bool:
    """Whether the kernel can read this layer's pages."""
    first, second = layer.streams
    if layer.keys_first or (layer.value_only is not None and second.size not in ROTARY_SIZES):
        return False
    return query.device.type == "cpu" and layer.tokens == PAGE_TOKENS and first.size + second.size <= MAX_SIZE


def decode_attention(
    kernel: Kernel, query: Tensor, pages: list[Tensor], layer: LayerFormat, first_position: int
) -> Partial:
    """See `attention.decode_attention`."""
    first, second = layer.streams
    forward, inverse = first.rotation.matrix, second.rotation.matrix.T
    if (shared := layer.value_only) is None:
        out, lse = _attend(kernel, query @ forward, None, pages, layer, first_position)
        return Partial(out @ inverse, lse)
    scaled = query * shared.key_norm
    turned = query[..., shared.rotary]
    merged, lse = _attend(kernel, scaled[..., shared.rest] @ forward, turned, pages, layer, first_position)
    rest, rotary = merged.split([first.size, second.size], -1)
    out = torch.empty_like(query)
    out[..., shared.rest], out[..., shared.rotary] = rest @ forward.T, rotary @ inverse
    return Partial(out, lse)


def _attend(
    kernel: Kernel, query: Tensor, turned: Tensor | None, pages: list[Tensor], layer: LayerFormat, first_position: int
) -> tuple[Tensor, Tensor]:
    """Attention in the rotated basis.

    Args:
        kernel: The kernel.
        query: Float32 [KV, N, size of the first stream], rotated like it.
        turned: For value-only layers, the queries' rotary dimensions [KV, N, rotary_dim]; not rotated.
        pages: See `decode_attention`; so `layer` and `first_position`.

    Returns:
        Outputs [KV, N, size of a value], rotated like the streams they come from, and the log-sum-exp [KV, N].
    """
    first, second = layer.streams
    heads, rows, _ = query.shape
    query = query.contiguous()
    out = torch.empty(heads, rows, second.size if turned is None else first.size + second.size)
    lse = torch.empty(heads, rows)
    levels = _levels(layer.rate, 63 if kernel.body == "avx2" else 127)
    call = Call(
        body=BODIES.index(kernel.body),
        rate=RATES.index(layer.rate),
        threads=torch.get_num_threads(),
        heads=heads,
        rows=rows,
        first_size=first.size,
        second_size=second.size,
        value_only=turned is not None,
        pages=len(pages),
        head_bytes=layer.head_bytes,
        first_position=first_position,
        page=ctypes.addressof(addresses := (ctypes.c_void_p * len(pages))(*map(Tensor.data_ptr, pages))),
        query=query.data_ptr(),
        main_levels=levels.main.data_ptr(),
        tail_levels=levels.tail.data_ptr(),
        unit=levels.unit,
        out=out.data_ptr(),
        lse=lse.data_ptr(),
    )
    if turned is not None:
        assert layer.value_only is not None
        rope, turned = _rope(layer.value_only, second.rotation.signs), turned.contiguous()
        call.turned, call.rope, call.rope_unit = turned.data_ptr(), rope.table.data_ptr(), rope.unit
        call.frequencies = rope.frequencies.data_ptr()
    kernel.library.g4_decode_attention(call)
    del addresses  # lived until here
    return out, lse


@dataclass(frozen=True, slots=True)
class _Levels:
    """A rate's codebooks in integers of one unit: int8 [coordinate of a code, code]."""

    main: Tensor
    tail: Tensor
    unit: float


@cache
def _levels(rate: str, most: int) -> _Levels:
    """Levels of at most `most` units, of the unit of which main levels of normal data are nearly multiples."""
    wide = codec(64, rate, Scale.NORM, Order.KEY)
    main, tail = (segment.codebook.levels for segment in wide.segments)
    units = max(main.abs().max().item(), tail.abs().max().item()) / (most - torch.arange(128) / 8)
    off = (main - (main / units[:, None, None]).round() * units[:, None, None]).square() * _frequency(main)[:, None]
    unit = units[off.sum((1, 2)).argmin()].item()
    return _Levels(_rounded(main, unit, most), _rounded(tail, unit, most), unit)


def _frequency(levels: Tensor) -> Tensor:
    """About how often normal data has each code, [codes]: its density to the power dims / (dims + 2)."""
    return torch.exp(-levels.square().sum(1) / (4 if levels.shape[1] == 2 else 6))


def _rounded(levels: Tensor, unit: float, most: int) -> Tensor:
    """Levels [codes, dims] in units. Their rounding errors cancel, or sums over many values would drift."""
    exact, frequency = levels / unit, _frequency(levels)
    rounded = exact.round()
    for axis in range(levels.shape[1]):
        for _ in range(MAX_MOVES):
            drift = ((rounded - exact)[:, axis] * frequency).sum()
            moved = rounded[:, axis] - drift.sign()
            better = (drift - drift.sign() * frequency).abs() < drift.abs() - frequency / 4
            errors = torch.where(better & (moved.abs() <= most), (moved - exact[:, axis]).abs(), torch.inf)
            if errors.min() > MAX_MOVE_ERROR:
                break
            rounded[errors.argmin(), axis] = moved[errors.argmin()]
    return rounded.to(torch.int8).T.contiguous()


def _rope(shared: ValueOnly, signs: Tensor) -> _Rope:
    if shared not in _ropes:
        _ropes[shared] = _make_rope(shared, signs)
    return _ropes[shared]


def _make_rope(shared: ValueOnly, signs: Tensor) -> _Rope:
    frequencies = shared.frequencies.double()
    first, second = (shared.key_norm[shared.rotary] * signs).double().chunk(2)
    most = max(first.abs().max().item(), second.abs().max().item()) * math.sqrt(2)
    angle = torch.arange(PAGE_TOKENS)[:, None] * frequencies
    c, s = angle.cos(), angle.sin()
    rows = (c * first - s * second, c * first + s * second, s * first + c * second, s * first - c * second)
    factors = torch.stack(rows) / most * 32767  # [4, tokens, pairs]
    lanes = factors.round().to(torch.int16).view(4, -1, 2, 4, 4, len(frequencies))  # [4, block, half, L, m, pairs]
    table = lanes.permute(1, 5, 0, 3, 2, 4).reshape(-1, len(frequencies), 4, TOKEN_BLOCK).contiguous()
    unit = most / math.sqrt(2 * len(frequencies)) * 32768 / 32767
    return _Rope(table, unit, frequencies)
