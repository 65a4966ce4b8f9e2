"""`decode_attention` by the native kernel: what it is given, and what it gives back."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from g4agent_torch.turboquant.codec import KEYS_FIRST, RATES, Scale, codec
from g4agent_torch.turboquant.formats import LayerFormat, ValueOnly
from g4agent_torch.turboquant.layout import PAGE_TOKENS, TOKEN_BLOCK, Order
from g4agent_torch.turboquant.native import BODIES, Call, Kernel, StreamLevels
from g4agent_torch.turboquant.native_encoding import native_rotation
from g4agent_torch.turboquant.partial import Partial
from g4agent_torch.turboquant.slabs import Pages
from g4agent_torch.turboquant.whole_levels import WholeLevels, whole_levels

MAX_SIZE: Final = 1024
ROTARY_SIZES: Final = (32, 64, 128)
"""Rotary dimensions for which the kernel rebuilds keys."""


_RATES: Final = (
    *((rate, rate, True) for rate in RATES),
    (*KEYS_FIRST["4"], False),
    *((*pair, False) for pair in (("4", "4"), KEYS_FIRST["3.5"], KEYS_FIRST["2.5"])),
)
"""Rates of both streams, and whether only values are kept, as the kernel numbers them."""


@dataclass(frozen=True, slots=True)
class _Shared:
    """How keys follow from values, as the kernel reads it: it rebuilds the rotary part of keys within a page, and turns
    queries to the page's start."""

    rest: Tensor
    """`ValueOnly.rest`, int32; and `rotary`."""
    rotary: Tensor
    key_norm: Tensor
    """Float32 [head_dim]."""
    rope: Tensor
    """Int16 [blocks, pairs, 4, 32]: rows (first from low, first from high, second from low, second from high), where
    low ± high are the last butterflies of the Hadamard transform. Tokens lie as `kernel` registers hold them."""
    rope_unit: float
    frequencies: Tensor
    """Float64 [pairs]."""


_made: WeakKeyDictionary[ValueOnly, _Shared] = WeakKeyDictionary()


def supports(layer: LayerFormat) -> bool:
    """Whether the kernel can read pages of this layer, if these are in its order."""
    first, second = layer.streams
    if layer.value_only is not None and second.size not in ROTARY_SIZES:
        return False
    return layer.tokens == PAGE_TOKENS and first.size + second.size <= MAX_SIZE


def decode_attention(
    kernel: Kernel,
    query: Tensor,
    pages: Sequence[Tensor],
    layer: LayerFormat,
    first_position: int,
    bias: Tensor | None = None,
) -> Partial:
    """See `reference_attention.decode_attention`; `bias` is finite. A query that is not has an output of NaN."""
    first, second = layer.streams
    heads, rows, size = query.shape
    query, read = query.contiguous(), pages if isinstance(pages, Pages) else Pages(pages)
    out, lse = torch.empty_like(query), torch.empty(heads, rows)
    assert bias is None or (bias.is_contiguous() and bias.shape == (heads, rows, len(pages) * layer.tokens))
    call = Call(
        body=BODIES.index(kernel.body),
        rates=_RATES.index((*layer.rates, layer.value_only is not None)),
        threads=torch.get_num_threads(),
        heads=heads,
        rows=rows,
        head_size=size,
        first_size=first.size,
        second_size=second.size,
        value_only=layer.value_only is not None,
        pages=len(pages),
        head_bytes=layer.head_bytes,
        first_position=first_position,
        page=ctypes.addressof(read.addresses),
        query=query.data_ptr(),
        rotation=(native_rotation(first.rotation), native_rotation(second.rotation)),
        levels=tuple(_levels(rate) for rate in layer.rates),
        bias=0 if bias is None else bias.data_ptr(),
        out=out.data_ptr(),
        lse=lse.data_ptr(),
    )
    if layer.value_only is not None:
        shared = _shared(layer.value_only, second.rotation.signs)
        call.place[:] = shared.rest.data_ptr(), shared.rotary.data_ptr()
        call.key_norm, call.frequencies = shared.key_norm.data_ptr(), shared.frequencies.data_ptr()
        call.rope, call.rope_unit = shared.rope.data_ptr(), shared.rope_unit
    kernel.library.g4_decode_attention(call)
    return Partial(out, lse)


def _levels(rate: str) -> StreamLevels:
    """A rate's codebooks."""
    whole, exact = _books(rate)
    segments, floats = (whole.main.data_ptr(), whole.tail.data_ptr()), tuple(book.data_ptr() for book in exact)
    return StreamLevels(segments, whole.unit, floats)


@cache
def _books(rate: str) -> tuple[WholeLevels, tuple[Tensor, ...]]:
    """A rate's codebooks in integers and in floats, [coordinate of a code, code]."""
    main, tail = (segment.codebook for segment in codec(64, rate, Scale.NORM, Order.KEY).segments)
    return whole_levels(main, tail), tuple(book.levels.cpu().T.contiguous() for book in (main, tail))


def _shared(layer: ValueOnly, signs: Tensor) -> _Shared:
    if layer not in _made:
        _made[layer] = _make_shared(layer, signs)
    return _made[layer]


def _make_shared(shared: ValueOnly, signs: Tensor) -> _Shared:
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
    rest, rotary, norm = shared.rest.int(), shared.rotary.int(), shared.key_norm.float().contiguous()
    return _Shared(rest, rotary, norm, table, unit, frequencies)
