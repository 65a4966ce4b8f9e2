"""Products with packed codes by PyTorch alone, quickly: sixteen bits of a page are the index of a table.

An entry of a table has all levels of the codes in its index side by side, so a stream is decoded by one `index_select`.
Levels then lie as codes do, and `layout.py` packs these for other kernels: a row may have two tokens or four. Bringing
millions of levels into another order costs more than a product. So queries and weights come several times, once for
each place in a row where another token stands, and of the products what belongs together is kept.

Four codes (or bytes of two) are moved as one int32. KV stands for heads, T for tokens, N for queries of a head.
"""

from __future__ import annotations

import threading
from functools import cache
from math import prod
from typing import Final

import torch
from torch import Tensor

from g4agent_torch.turboquant.codebooks import Codebook
from g4agent_torch.turboquant.codec import Codec
from g4agent_torch.turboquant.layout import BUNDLE, CODEVEC, PAGE_TOKENS, TOKEN_BLOCK, UNIT_BLOCK, Order

LANES: Final = 16
"""Of a codevec; each has four codes."""
BLOCKS: Final = PAGE_TOKENS // TOKEN_BLOCK
"""Of a page, in either order: 32 tokens are a block of KEY order and a bundle of VALUE order."""
_WORDS: Final = 1 << 16
_ENTRIES: Final = {4: torch.int32, 8: torch.int64, 16: torch.complex128}
"""Bytes of a table's entry → a type that is moved as one."""
_ONES: Final = 0x0101010101010101


class Lookup:
    """How one kind of stream is decoded, and how its levels are multiplied.

    Args:
        codec: The stream's.
        dtype: Of levels and products: bfloat16 or float32.
    """

    def __init__(self, codec: Codec, dtype: torch.dtype) -> None:
        books = [segment.codebook for segment in codec.segments]
        self._codec, self._dtype, self._dims = codec, dtype, books[0].dims
        self._nibbles = all(book.dims == 1 and book.bits <= 4 for book in books)
        """Whether a byte has two codes: of tokens 16 apart in KEY order, 4 apart in VALUE order."""
        self._table = torch.cat([_table(book, dtype, self._nibbles) for book in books])

    def levels(self, packed: Tensor, name: str) -> Tensor:
        """Levels of pages, uint8 [pages, KV, stream_bytes less the scales], in the order of `_codes`.

        They last until this thread asks for some of the same name again.
        """
        words = self._codes(packed).view(torch.uint16)
        index = _buffer("index", words.shape, torch.int32).copy_(words)
        groups = index.dim() - 2 if self._codec.order is Order.KEY else 1
        start = 0
        for number, segment in enumerate(self._codec.segments):
            count = segment.units // UNIT_BLOCK
            if number:
                index.narrow(groups, start, count).add_(number * _WORDS)
            start += count
        found = _buffer(name, (index.numel(),), self._table.dtype)
        torch.index_select(self._table, 0, index.view(-1), out=found)
        return found.view(self._dtype)

    # Products in KEY order --------------------------------------------------------------------------------------------

    def scores(self, query: Tensor, levels: Tensor) -> Tensor:
        """Products of queries [KV, N, d] with levels, [KV, N, T]."""
        heads, rows, size = query.shape
        if not self._nibbles:
            return torch.bmm(query, self._rows(levels, heads).transpose(1, 2))
        both = query.new_zeros(heads, 2, rows, size // 2, 2, 2)  # [KV, half, N, pairs of units, half, 2]
        both[:, 0, ..., 0, :] = both[:, 1, ..., 1, :] = query.unflatten(-1, (-1, 2))
        halves = levels.view(heads, -1, 2 * size)
        product = torch.bmm(both.view(heads, 2 * rows, 2 * size), halves.transpose(1, 2))
        return product.view(heads, 2, rows, -1, LANES).permute(0, 2, 3, 1, 4).flatten(2)

    def vectors(self, levels: Tensor, heads: int) -> Tensor:
        """Levels as vectors [KV, T, d]."""
        if not self._nibbles:
            return self._rows(levels, heads)
        halves = levels.view(heads, -1, LANES, self._codec.size // 2, 2, 2)
        return halves.permute(0, 1, 4, 2, 3, 5).flatten(4).flatten(1, 3)

    def sums(self, weights: Tensor, levels: Tensor) -> Tensor:
        """Sums of levels by weights [KV, N, T], [KV, N, d]."""
        heads, rows, tokens = weights.shape
        if self._codec.order is Order.VALUE:
            return self._value_sums(weights, levels)
        if not self._nibbles:
            return torch.bmm(weights, self._rows(levels, heads))
        halves = weights.view(heads, rows, -1, 2, LANES).permute(0, 3, 1, 2, 4)
        product = torch.bmm(halves.flatten(3).flatten(1, 2), levels.view(heads, tokens // 2, -1))
        product = product.view(heads, 2, rows, -1, 2, 2)
        return (product[:, 0, ..., 0, :] + product[:, 1, ..., 1, :]).flatten(2)

    def _rows(self, levels: Tensor, heads: int) -> Tensor:
        return levels.view(heads, -1, self._codec.size)

    # Products in VALUE order ------------------------------------------------------------------------------------------

    def _value_sums(self, weights: Tensor, levels: Tensor) -> Tensor:
        heads, rows, tokens = weights.shape
        if self._nibbles:
            ordered = weights.flatten(0, 1).index_select(1, _nibble_order(tokens)).view_as(weights)
            return torch.bmm(ordered, levels.view(heads, -1, tokens).transpose(1, 2))
        fours = weights.view(heads, 1, rows, -1, 4).permute(0, 1, 4, 2, 3).flatten(2, 3)
        units = levels.view(heads, -1, tokens // 4, LANES * 4 * self._dims)  # of sixteen units, four tokens in a row
        product = torch.matmul(fours, units).view(heads, -1, 4, rows, LANES, 4, self._dims)
        kept = torch.diagonal(product, dim1=2, dim2=5).sum(-1)  # [KV, units / 16, N, LANES, dims]
        return kept.transpose(1, 2).flatten(2)

    # Codes ------------------------------------------------------------------------------------------------------------

    def _codes(self, packed: Tensor) -> Tensor:
        """Codes, four (or bytes of two) to an int32.

        Returns:
            In KEY order [KV, pages, BLOCKS, 2 token halves, LANES, units / 16, 4], or [KV, pages, BLOCKS, LANES,
            units / 16, 4] with both halves in a byte; in VALUE order [KV, units / 16, pages, BLOCKS, 8, LANES], or
            [KV, units / 16, LANES, pages, BLOCKS, 4] with two codes to a byte.
        """
        key, rows = self._codec.order is Order.KEY, 4 if self._nibbles else BUNDLE
        pages, heads = packed.shape[:2]
        groups = sum(segment.units for segment in self._codec.segments) // UNIT_BLOCK
        if key:
            shape = (heads, pages, BLOCKS, *(() if self._nibbles else (2,)), LANES, groups, 4)
        else:
            shape = (heads, groups, *((LANES, pages, BLOCKS, rows) if self._nibbles else (pages, BLOCKS, rows, LANES)))
        codes, start = _buffer("codes", shape, torch.int32), 0
        for segment, part in zip(self._codec.segments, packed.split(self._part_bytes, -1), strict=True):
            count = segment.units // UNIT_BLOCK
            found = self._unpacked(part, segment.codebook.bits, (BLOCKS, count) if key else (count, BLOCKS))
            if not key:  # [rows, pages, KV, units / 16, BLOCKS, LANES]
                ordered = found.permute((2, 3, 5, 1, 4, 0) if self._nibbles else (2, 3, 1, 4, 0, 5))
                codes[:, start : start + count] = ordered
            elif self._nibbles:  # [rows, pages, KV, BLOCKS, units / 16, LANES]
                codes[..., start : start + count, :] = found.permute(2, 1, 3, 5, 4, 0)
            else:
                codes[..., start : start + count, :] = found.unflatten(0, (4, 2)).permute(3, 2, 4, 1, 6, 5, 0)
            start += count
        return codes

    @property
    def _part_bytes(self) -> list[int]:
        return list(self._codec.part_bytes(PAGE_TOKENS)[:-1])

    def _unpacked(self, packed: Tensor, bits: int, bundles: tuple[int, int]) -> Tensor:
        """A segment, uint8 [pages, KV, bytes] → int32 [8, pages, KV, *bundles, LANES] with a code in the low bits of
        each byte, or [4, ...] with two."""
        found: Tensor = packed.unflatten(-1, (*bundles, bits, CODEVEC)).movedim(-2, 0)
        if self._nibbles and bits == 4:
            return found.view(torch.int32)
        words = found.view(torch.int64)
        rows = _buffer("rows", (BUNDLE, *words.shape[1:]), torch.int64)
        if bits >= 5:
            rows[:bits] = words
            part = _buffer("part", tuple(words.shape[1:]), torch.int64)
            for j in range(bits, BUNDLE):  # bit j of row i is bit i of code j
                torch.bitwise_right_shift(rows[0], j, out=rows[j]).bitwise_and_(_ONES)
                for i in range(1, bits):
                    torch.bitwise_right_shift(rows[i], j - i, out=part).bitwise_and_(_ONES << i)
                    rows[j].bitwise_or_(part)
        elif bits == 4:
            rows[0::2], rows[1::2] = words, words >> 4
        else:
            assert bits == 3, bits
            low, high = words[:2].contiguous(), words[2].contiguous()
            for n in range(BUNDLE):
                torch.bitwise_right_shift(low[n // 4], 2 * (n % 4), out=rows[n]).bitwise_and_(3 * _ONES)
                rows[n].bitwise_or_((high >> n & _ONES) << 2)
        if self._nibbles:
            rows = rows[0::2] | rows[1::2] << 4
        return rows.view(torch.int32)


def _table(book: Codebook, dtype: torch.dtype, nibbles: bool) -> Tensor:
    """Levels of the codes in each word: neighbouring units in KEY order, neighbouring tokens in VALUE order; of two
    codes in a byte first all lower ones. Bits beyond a code's do not count."""
    word = torch.arange(_WORDS)
    codes = torch.stack([word & 255, word >> 8], 1)
    if nibbles:
        codes = torch.stack([codes & 15, codes >> 4], 1).flatten(1)
    levels = book.levels.cpu()[codes & (1 << book.bits) - 1].flatten(1).to(dtype).contiguous()
    return levels.view(_ENTRIES[levels.shape[1] * levels.itemsize])[:, 0]


@cache
def _nibble_order(tokens: int) -> Tensor:
    """In which order tokens stand where a byte of VALUE order has two codes."""
    return torch.arange(tokens).view(-1, 2, 2, 2).transpose(1, 2).flatten()


_held = threading.local()


def _buffer(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory of this thread that is used again: fresh memory takes the system as much time as a product."""
    size = prod(shape) * dtype.itemsize
    buffers: dict[str, Tensor] = _held.__dict__
    if name not in buffers or buffers[name].numel() < size:
        buffers[name] = torch.empty(size, dtype=torch.uint8)
    return buffers[name][:size].view(dtype).view(shape)
