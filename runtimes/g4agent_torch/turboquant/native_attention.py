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

from g4agent_torch.turboquant.codec import KEYS_FIRST, RATES, Scale, codec
from g4agent_torch.turboquant.formats import LayerFormat, ValueOnly
from g4agent_torch.turboquant.layout import PAGE_TOKENS, TOKEN_BLOCK, Order
from g4agent_torch.turboquant.native import BODIES, Call, Kernel, StreamLevels
from g4agent_torch.turboquant.native_encoding import native_rotation
from g4agent_torch.turboquant.partial import Partial

MAX_SIZE: Final = 1024
ROTARY_SIZES: Final = (32, 64, 128)
"""Rotary dimensions for which the kernel rebuilds keys."""


_RATES: Final = (
    *((rate, rate, True) for rate in RATES),
    (*KEYS_FIRST["4"], False),
    *((*pair, False) for pair in (("4", "4"), KEYS_FIRST["3.5"], KEYS_FIRST["2.5"])),
)
"""Rates of both streams, and whether only values are kept, as the kernel numbers them."""
MAX_MOVES: Final = 8
"""Levels per coordinate that may be rounded the other way."""
MAX_MOVE_ERROR: Final = 0.8
"""Units by which such a level may be off."""


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


def supports(layer: LayerFormat, query: Tensor) -> bool:
    """Whether the kernel can read this layer's pages."""
    first, second = layer.streams
    if layer.value_only is not None and second.size not in ROTARY_SIZES:
        return False
    return query.device.type == "cpu" and layer.tokens == PAGE_TOKENS and first.size + second.size <= MAX_SIZE


def decode_attention(
    kernel: Kernel,
    query: Tensor,
    pages: list[Tensor],
    layer: LayerFormat,
    first_position: int,
    bias: Tensor | None = None,
) -> Partial:
    """See `reference_attention.decode_attention`."""
    first, second = layer.streams
    heads, rows, size = query.shape
    query = query.contiguous()
    out, lse = torch.empty_like(query), torch.empty(heads, rows)
    levels = [_levels(rate, 63 if kernel.body == "avx2" else 127) for rate in layer.rates]
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
        page=ctypes.addressof(addresses := (ctypes.c_void_p * len(pages))(*map(Tensor.data_ptr, pages))),
        query=query.data_ptr(),
        rotation=(native_rotation(first.rotation), native_rotation(second.rotation)),
        levels=(levels[0].of_call(), levels[1].of_call()),
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
    del addresses  # lived until here
    return Partial(out, lse)


@dataclass(frozen=True, slots=True)
class _Levels:
    """A rate's codebooks in integers of one unit: int8 [coordinate of a code, code]."""

    main: Tensor
    tail: Tensor
    unit: float

    def of_call(self) -> StreamLevels:
        return StreamLevels((self.main.data_ptr(), self.tail.data_ptr()), self.unit)


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
