"""Products with packed codes by PyTorch alone, quickly: codes of TOKEN order are indices of a table.

An entry has the levels of all codes in its index, so one `index_select` decodes a stream to vectors that lie one after
the other, as products want them. Where the processor multiplies bytes, levels are whole numbers (`whole_levels.py`),
and what they are multiplied with is two: a float is rounded to 128 · high + low, to one part in 32,512 of the largest
in its row. Rows are short: in long ones many small weights beside a large one would each be rounded to nothing.

KV stands for heads, T for tokens, N for queries of a head.
"""

from __future__ import annotations

import threading
from functools import cache
from math import prod
from typing import Final, NamedTuple

import torch
from torch import Tensor

from g4agent_torch.one_token import has_onednn
from g4agent_torch.turboquant.codebooks import Codebook
from g4agent_torch.turboquant.codec import Codec
from g4agent_torch.turboquant.layout import BUNDLE, PAGE_TOKENS, codes_in_byte
from g4agent_torch.turboquant.slabs import in_huge_pages
from g4agent_torch.turboquant.whole_levels import MOST, whole_levels

_WIDE: Final = torch.complex128
"""The widest type: what goes together is moved as that. A tail's indices fill it, one time or two."""
_ENTRIES: Final = {2: torch.int16, 4: torch.int32, 8: torch.int64, 16: _WIDE}
"""Bytes of an entry → a type that is moved as one."""
_STEPS: Final = 128
"""Of the low part to one of the high part."""
_ONES: Final = 0x0101010101010101
_LEAST: Final = 1e-30
MAX_ROW: Final = 1024
"""Numbers of a row at most: 1024 · 127 · 127 · 128 is less than 2^31."""


class Factor(NamedTuple):
    """Rows to multiply levels with, [B, M, K]."""

    parts: Tensor
    """Int8 [B, 2 M, K], first all high parts; or float32 [B, M, K]."""
    unit: Tensor | None
    """What a product of 1 stands for, float32 [B, M, 1]; None: 1."""


class Lookup:
    """How one kind of stream is decoded, and how its levels are multiplied.

    Args:
        codec: The stream's, in TOKEN order.
        dtype: Of levels: int8, which needs fast products of bytes, or float32.
    """

    def __init__(self, codec: Codec, dtype: torch.dtype) -> None:
        books = tuple(segment.codebook for segment in codec.segments)  # of 32 coordinates there may be one only
        self._codec, self._dtype = codec, dtype
        self._entry = _levels_of_entry(books, dtype)
        self._widths = [_width(book, self._entry) for book in books]
        self._table, self.unit = _tables(books, dtype)

    def levels(self, packed: Tensor, name: str) -> Tensor:
        """Levels of pages, uint8 [pages, KV, stream_bytes less the scales] → `dtype` [KV, T, d], in `unit`.

        They last until this thread asks for some of the same name again.
        """
        pages, heads = packed.shape[:2]
        index = buffer("index", (heads, pages, PAGE_TOKENS, self._codec.size // self._entry), torch.int32)
        main, *tail = packed.split(list(self._codec.part_bytes(PAGE_TOKENS)[:-1]), -1)
        places = self._places(main, 0)
        index[..., : places.shape[-1]] = places
        if tail:
            last = self._places(tail[0], 1).to(torch.int32, memory_format=torch.contiguous_format)
            last.add_(1 << 8 * self._widths[0])  # behind the main segment's entries
            start = places.shape[-1] * last.itemsize // _WIDE.itemsize
            index.view(_WIDE)[..., start:] = last.view(_WIDE)  # a row is short: as few elements as can be
        found = buffer(name, (index.numel(),), self._table.dtype)
        torch.index_select(self._table, 0, index.view(-1), out=found)
        levels: Tensor = found.view(self._dtype).view(heads, -1, self._codec.size)
        return levels

    def _places(self, part: Tensor, segment: int) -> Tensor:
        """A segment of pages, uint8 [pages, KV, bytes] → indices within its table [KV, pages, PAGE_TOKENS, indices]."""
        codes = _in_bytes(part, self._codec.segments[segment].codebook.bits)
        rows: Tensor = codes.unflatten(-1, (PAGE_TOKENS, -1)).transpose(0, 1)
        return rows if self._widths[segment] == 1 else rows.view(torch.uint16)

    def factor(self, rows: Tensor) -> Factor:
        """Float32 rows [B, M, K], K at most 1024, as `scores` takes them."""
        if self._dtype != torch.int8:
            return Factor(rows, None)
        batch, count, size = rows.shape
        unit = rows.abs().amax(-1, keepdim=True).clamp_(min=_LEAST).mul_(1 / (MOST * _STEPS))
        low = torch.div(rows, unit).round_()
        high = torch.mul(low, 1 / _STEPS).round_()
        parts = torch.empty(batch, 2 * count, size, dtype=torch.int8)
        parts[:, :count], parts[:, count:] = high, low.sub_(high, alpha=_STEPS)
        return Factor(parts, unit * self.unit)

    def scores(self, query: Factor, levels: Tensor) -> Tensor:
        """Products of queries [KV, N, d] with levels [KV, T, d], float32 [KV, N, T]."""
        return self._product(query, list(levels.transpose(1, 2)))

    def sums(self, weights: Tensor, levels: Tensor) -> Tensor:
        """Sums of levels [KV, T, d] by weights, float32 [KV, N, T]: float32 [KV, N, d]."""
        heads, rows, tokens = weights.shape
        even = tokens - tokens % MAX_ROW
        found = weights.new_zeros(heads, rows, levels.shape[2])
        for start, end, size in ((0, even, MAX_ROW), (even, tokens, tokens - even)):
            if start < end:
                short = weights[..., start:end].unflatten(-1, (-1, size)).transpose(1, 2).flatten(0, 1)
                matrices = [matrix for head in levels for matrix in head[start:end].split(size)]
                found += self._product(self.factor(short), matrices).view(heads, -1, rows, levels.shape[2]).sum(1)
        return found

    def _product(self, factor: Factor, levels: list[Tensor]) -> Tensor:
        """Rows [B, M, K] times B matrices of levels [K, C], float32 [B, M, C]."""
        if factor.unit is None:
            return torch.stack([rows @ matrix for rows, matrix in zip(factor.parts, levels, strict=True)])
        batch, count = factor.unit.shape[:2]
        found = buffer("product", (batch, 2 * count, levels[0].shape[1]), torch.int32)
        for rows, matrix, out in zip(factor.parts, levels, found, strict=True):
            torch._int_mm(rows, matrix, out=out)
        high, low = found.split(count, 1)
        whole: Tensor = low.add_(high, alpha=_STEPS)
        return whole * factor.unit

    def signed_sums(self, levels: Tensor, signs: Tensor) -> Tensor:
        """Levels [KV, T, d] times a matrix of ±1, float32 [d, C]: float32 [KV, T, C], in `unit`.

        They last until this thread asks for others.
        """
        rows, shape = levels.flatten(0, 1), (*levels.shape[:2], signs.shape[1])
        sums = buffer("sums", shape, torch.float32)
        if self._dtype != torch.int8:
            return torch.matmul(levels, signs, out=sums)
        whole = buffer("product", (len(rows), signs.shape[1]), torch.int32)
        torch._int_mm(rows, signs.to(torch.int8), out=whole)
        return sums.copy_(whole.view(shape))


def multiplies_bytes() -> bool:
    """Whether products of bytes are fast here: by oneDNN, on processors made for them."""
    return has_onednn() and torch.cpu._is_vnni_supported()


def _in_bytes(part: Tensor, bits: int) -> Tensor:
    """A segment of pages, uint8 [pages, KV, bytes] → bytes of one code, or of two, in the order of the codes.

    Two codes of 3 bits lie as in `_split`.
    """
    if bits == 4:
        return part
    rows = part.unflatten(-1, (bits, -1)).view(torch.int64)
    if bits == 3:
        low = rows[..., :2, None, :].bitwise_right_shift(_shifts(2, 4)).flatten(-3, -2).bitwise_and_(0x0F * _ONES)
        high = rows[..., 2:, :].bitwise_right_shift(_shifts(4, 2)).bitwise_and_(3 * _ONES)
        pairs: Tensor = low.bitwise_or_(high.bitwise_left_shift_(4))
        return pairs.view(torch.uint8).flatten(-2)
    codes = buffer("codes", (*rows.shape[:-2], BUNDLE, rows.shape[-1]), torch.int64)
    torch.bitwise_and(rows, ((1 << bits) - 1) * _ONES, out=codes[..., :bits, :])
    for j in range(bits, BUNDLE):  # bit j of row i is bit i of code j
        code = (rows[..., 0, :] >> j).bitwise_and_(_ONES)
        for i in range(1, bits):
            code.bitwise_or_((rows[..., i, :] >> j - i).bitwise_and_(_ONES << i))
        codes[..., j, :] = code
    return codes.view(torch.uint8).flatten(-2)


def _split(byte: Tensor, bits: int) -> Tensor:
    """Codes of bytes [...] as `_in_bytes` makes them, [..., codes]."""
    if bits == 3:  # two low bits of each, then the third of each
        return torch.stack([byte & 3 | byte >> 2 & 4, byte >> 2 & 3 | byte >> 3 & 4], -1)
    if bits == 4:
        return torch.stack([byte & 15, byte >> 4], -1)
    return (byte & (1 << bits) - 1)[..., None]


def _levels_of_entry(books: tuple[Codebook, ...], dtype: torch.dtype) -> int:
    """Those of two bytes of the main segment, or as many as can be moved as one."""
    return min(_WIDE.itemsize // dtype.itemsize, 2 * codes_in_byte(books[0].bits) * books[0].dims)


def _width(book: Codebook, entry: int) -> int:
    """Bytes of an index of such codes, one or two."""
    return entry // (codes_in_byte(book.bits) * book.dims)


@cache
def _tables(books: tuple[Codebook, ...], dtype: torch.dtype) -> tuple[Tensor, float]:
    """The entries of all segments, one after the other, and the unit of their levels. Streams of a rate share them:
    they stay near the processor."""
    levels, unit = [book.levels.cpu().to(dtype) for book in books], 1.0
    if dtype == torch.int8:
        whole = whole_levels(books[0], books[-1])
        levels, unit = [whole.main.T, whole.tail.T], whole.unit
    entry = _levels_of_entry(books, dtype)
    table = torch.cat([_table(some, book.bits, _width(book, entry)) for some, book in zip(levels, books, strict=False)])
    return in_huge_pages(table.view(torch.uint8)).view(table.dtype), unit


def _table(levels: Tensor, bits: int, width: int) -> Tensor:
    """The entries of all indices of `width` bytes: levels [codes, dims] of their codes, side by side."""
    index = torch.arange(1 << 8 * width)
    codes = torch.cat([_split(index >> 8 * i & 255, bits) for i in range(width)], -1)
    entries = levels[codes].flatten(1).contiguous()
    return entries.view(_ENTRIES[entries.shape[1] * entries.itemsize])[:, 0]


@cache
def _shifts(count: int, step: int) -> Tensor:
    return torch.arange(0, count * step, step)[:, None]


_held = threading.local()


def buffer(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory of this thread that is used again: fresh memory takes the system as much time as a product."""
    size = prod(shape) * dtype.itemsize
    buffers: dict[str, Tensor] = _held.__dict__
    if name not in buffers or buffers[name].numel() < size:
        with torch.inference_mode(False):  # or nobody outside that mode could write to it again
            buffers[name] = torch.empty(size, dtype=torch.uint8)
    return buffers[name][:size].view(dtype).view(shape)
