"""Products with packed codes by PyTorch alone, quickly: sixteen bits of a page are the index of a table.

An entry of a table has all levels of the codes in its index side by side, so a segment is decoded by one
`index_select`. Levels then lie as codes do, and `layout.py` packs these for other kernels: a row may have two tokens or
four. Bringing millions of levels into another order costs more than a product. So queries and weights come several
times, once for each place in a row where another token stands, and of the products what belongs together is kept.

Four codes (or bytes of two) are moved as one int32. KV stands for heads, T for tokens, N for queries of a head.
"""

from __future__ import annotations

import threading
from functools import cache
from math import prod
from typing import Final

import torch
from torch import Tensor

from g4agent_torch.turboquant.codec import Segment
from g4agent_torch.turboquant.layout import BUNDLE, CODEVEC, PAGE_TOKENS, TOKEN_BLOCK, Order

LANES: Final = 16
"""Of a codevec; each has four codes."""
BLOCKS: Final = PAGE_TOKENS // TOKEN_BLOCK
"""Of a page, in either order: 32 tokens are a block of KEY order and a bundle of VALUE order."""
_ENTRIES: Final = {4: torch.int32, 8: torch.int64, 16: torch.complex128}
"""Bytes of a table's entry → a type that is moved as one."""
_ONES: Final = 0x0101010101010101


class Lookup:
    """One segment of pages, and the products with its levels.

    Args:
        segment: Of a stream.
        order: The stream's.
        dtype: Of levels and products: bfloat16 or float32.
    """

    def __init__(self, segment: Segment, order: Order, dtype: torch.dtype) -> None:
        book = segment.codebook
        self._bits, self._dims, self._order, self._dtype = book.bits, book.dims, order, dtype
        self._nibbles = book.dims == 1 and book.bits <= 4
        """Whether a byte has two codes: of tokens 16 apart in KEY order, 4 apart in VALUE order."""
        word = torch.arange(1 << 16)
        codes = torch.stack([word & 255, word >> 8], 1)  # of neighbouring units in KEY order, of tokens in VALUE order
        if self._nibbles:
            codes = torch.stack([codes & 15, codes >> 4], 1).flatten(1)
        levels = book.levels[codes & (1 << book.bits) - 1].flatten(1).to(dtype).contiguous()
        self._table = levels.view(_ENTRIES[levels.shape[1] * levels.itemsize])[:, 0]

    # Keys, and values in their order ----------------------------------------------------------------------------------

    def scores(self, query: Tensor, packed: Tensor) -> Tensor:
        """Products of queries [KV, N, size] and the levels of uint8 [pages, KV, bytes] in KEY order, [KV, N, T]."""
        if not self._nibbles:
            return torch.bmm(query, self.levels(packed).transpose(1, 2))
        heads, rows, size = query.shape
        both = query.new_zeros(heads, 2, rows, size // 2, 2, 2)  # [KV, half, N, pairs of units, half, 2]
        both[:, 0, ..., 0, :] = both[:, 1, ..., 1, :] = query.unflatten(-1, (-1, 2))
        levels = self._found(packed).view(heads, -1, 2 * size)
        product = torch.bmm(both.view(heads, 2 * rows, 2 * size), levels.transpose(1, 2))
        return product.view(heads, 2, rows, -1, LANES).permute(0, 2, 3, 1, 4).flatten(2)

    def levels(self, packed: Tensor) -> Tensor:
        """Levels of uint8 [pages, KV, bytes] in KEY order, [KV, T, size]; until the next call in this thread."""
        found = self._found(packed)
        if not self._nibbles:
            return found.view(packed.shape[1], len(packed) * PAGE_TOKENS, -1)
        halves = found.view(packed.shape[1], len(packed) * BLOCKS, LANES, -1, 2, 2)
        return halves.permute(0, 1, 4, 2, 3, 5).flatten(4).flatten(1, 3)

    def key_order_sums(self, weights: Tensor, packed: Tensor) -> Tensor:
        """Sums by weights [KV, N, T] of the levels of uint8 [pages, KV, bytes] in KEY order, [KV, N, size]."""
        if not self._nibbles:
            return torch.bmm(weights, self.levels(packed))
        heads, rows, _ = weights.shape
        halves = weights.view(heads, rows, -1, 2, LANES).permute(0, 3, 1, 2, 4)
        levels = self._found(packed).view(heads, halves.shape[3] * LANES, -1)
        product = torch.bmm(halves.flatten(3).flatten(1, 2), levels).view(heads, 2, rows, -1, 2, 2)
        return (product[:, 0, ..., 0, :] + product[:, 1, ..., 1, :]).flatten(2)

    # Values -----------------------------------------------------------------------------------------------------------

    def value_order_sums(self, weights: Tensor, packed: Tensor) -> Tensor:
        """Sums by weights [KV, N, T] of the levels of uint8 [pages, KV, bytes] in VALUE order, [KV, N, size]."""
        heads, rows, tokens = weights.shape
        found = self._found(packed)
        if self._nibbles:
            levels = found.view(heads, -1, tokens)
            ordered = weights.flatten(0, 1).index_select(1, _nibble_order(tokens)).view_as(weights)
            return torch.bmm(ordered, levels.transpose(1, 2))
        fours = weights.view(heads, 1, rows, -1, 4).permute(0, 1, 4, 2, 3).flatten(2, 3)
        levels = found.view(heads, -1, tokens // 4, LANES * 4 * self._dims)
        product = torch.matmul(fours, levels).view(heads, -1, 4, rows, LANES, 4, self._dims)
        kept = torch.diagonal(product, dim1=2, dim2=5).sum(-1)  # [KV, units / 16, N, LANES, dims]
        return kept.transpose(1, 2).flatten(2)

    # Decoding ---------------------------------------------------------------------------------------------------------

    def _found(self, packed: Tensor) -> Tensor:
        """Levels in the order of `_codes`, of the last dimension of which each number gives as many as it has codes."""
        words = self._codes(packed).view(torch.uint16)
        index = _buffer("index", (words.numel(),), torch.int32).copy_(words.flatten())
        found = _buffer("levels", (words.numel(),), self._table.dtype)
        torch.index_select(self._table, 0, index, out=found)
        return found.view(self._dtype)

    def _codes(self, packed: Tensor) -> Tensor:
        """Codes of uint8 [pages, KV, bytes], four (or bytes of two) to an int32.

        Returns:
            In KEY order [KV, tokens, units / 4], or with two codes to a byte [KV, T / 2, units / 4], where a row has
            tokens t and t + 16; in VALUE order [KV, units / 16, T / 4, 16 units], or with two codes to a byte
            [KV, units, T / 8], each flattened.
        """
        rows = packed.unflatten(-1, (-1, self._bits, CODEVEC))  # [pages, KV, bundles, bits, 64]
        apart = (BLOCKS, -1) if self._order is Order.KEY else (-1, BLOCKS)
        rows = rows.unflatten(2, apart).movedim(4, 0)  # [bits, pages, KV, blocks, bundles, 64] or blocks last
        if self._nibbles and self._bits == 4:
            codes = rows.view(torch.int32)
        else:
            codes = self._unpacked(rows.view(torch.int64)).view(torch.int32)
        order: tuple[int, ...]
        if self._order is Order.VALUE:  # [rows, pages, KV, units / 16, BLOCKS, LANES]
            order = (2, 3, 5, 1, 4, 0) if self._nibbles else (2, 3, 1, 4, 0, 5)
        elif self._nibbles:  # [rows, pages, KV, BLOCKS, units / 16, LANES]
            order = (2, 1, 3, 5, 4, 0)
        else:
            codes, order = codes.unflatten(0, (4, 2)), (3, 2, 4, 1, 6, 5, 0)
        ordered = codes.permute(order)
        return _buffer("codes", tuple(ordered.shape), torch.int32).copy_(ordered)

    def _unpacked(self, packed: Tensor) -> Tensor:
        """Rows of bundles, int64 [bits, ..., 8] → [8, ..., 8] with a code in the low bits of each byte, or [4, ..., 8]
        with two."""
        bits = self._bits
        rows = _buffer("rows", (BUNDLE, *packed.shape[1:]), torch.int64)
        if bits >= 5:
            rows[:bits] = packed
            part = _buffer("part", tuple(packed.shape[1:]), torch.int64)
            for j in range(bits, BUNDLE):  # bit j of row i is bit i of code j
                torch.bitwise_right_shift(rows[0], j, out=rows[j]).bitwise_and_(_ONES)
                for i in range(1, bits):
                    torch.bitwise_right_shift(rows[i], j - i, out=part).bitwise_and_(_ONES << i)
                    rows[j].bitwise_or_(part)
        elif bits == 4:
            rows[0::2], rows[1::2] = packed, packed >> 4
        else:
            assert bits == 3, bits
            low, high = packed[:2].contiguous(), packed[2].contiguous()
            for n in range(BUNDLE):
                torch.bitwise_right_shift(low[n // 4], 2 * (n % 4), out=rows[n]).bitwise_and_(3 * _ONES)
                rows[n].bitwise_or_((high >> n & _ONES) << 2)
        return rows[0::2] | rows[1::2] << 4 if self._nibbles else rows


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
