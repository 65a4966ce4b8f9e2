"""Where each bit of a page lies. This page is the contract between the codec and the native kernels.

Units and segments
    A vector of d rotated coordinates is a row of *units*: a unit is one coordinate (scalar codebooks) or two
    neighbours 2j, 2j + 1 (pair codebooks), coded in b bits. Two *segments* follow each other: `main`, and a shorter
    `tail` with one bit less per unit; what the tail saves, 16 bits, pays for the vector's scale, so that a rate counts
    everything. Each segment has a multiple of 16 units.

        rate   main (coordinates)      tail (last coordinates)   bytes per vector
        5      scalar 5 bit (d − 16)   scalar 4 bit (16)         5 d / 8
        4      scalar 4 bit (d − 16)   scalar 3 bit (16)         d / 2
        3.5    pair 7 bit (d − 32)     pair 6 bit (32)           7 d / 16
        3      pair 6 bit (d − 32)     pair 5 bit (32)           3 d / 8
        2.5    pair 5 bit (d − 32)     pair 4 bit (32)           5 d / 16
        2      pair 4 bit (d − 32)     pair 3 bit (32)           d / 4

    The rates that users choose are 4, 3.5 and 2.5. Values that are kept alone have that rate; else keys and values
    make it together: 4 and 4, 4 and 3, or 3 and 2; and at 4, where keys need more, 5 and 3.

    Decoded coordinate = scale · level, with the level from the codebook of the segment (`codebooks.py`, float32, unit
    variance), in the rotated basis. A rate of whole bits without a tail (`Codec.plain`) exists for measurements only.

Stream: P vectors of one KV head, P the tokens of a page (a multiple of 32; 128 in the product)
    offset 0                       main:   P · units · b / 8 bytes
    offset main_bytes              tail:   alike
    offset main_bytes + tail_bytes scales: P IEEE half floats, little endian, token 0 first
    With P = 128 every part is a multiple of 64 bytes.

Codevec: 64 codes, one per byte, what one 512-bit register holds after unpacking
    KEY order (lanes are tokens):  byte 4i + j = code of token 16 t + i and unit 4 u + j     (0 ≤ i < 16, 0 ≤ j < 4)
    VALUE order (lanes are units): byte 4i + j = code of token 4 t + j  and unit 16 u + i
    A segment in KEY order is, for each block of 32 tokens, for each u, the codevecs of t = 2 · block and of the next t.
    A segment in VALUE order is, for each u, the codevecs of t = 0, 1, ..., P / 4 − 1.
    So four neighbouring bytes are what an int8 dot product adds up: four units of a key, four tokens of a value.
    TOKEN order, for PyTorch alone, has codes lie as in the vectors, token after token. Its codevecs are longer: eight
    make a segment, so each has n = P · units / 8 codes. With b > 4, the first has the first n codes, and so on; with
    b ≤ 4, the first has the even and the second the odd ones of the first 2n, so that a byte has neighbours.

Bundle: eight consecutive codevecs c0 ... c7 of b bits each, packed byte by byte into b rows r0, r1, ... as long
    b = 1  r0 = Σ cn << n
    b = 2  ri = Σ c(4i + n) << 2n, n = 0 ... 3
    b = 3  r0, r1 as b = 2 from the low two bits of each code; r2 as b = 1 from the third bit
    b = 4  ri = c(2i) | c(2i + 1) << 4: in KEY order, a register of tokens 0–15 and one of tokens 16–31
    b = 5, 6, 7  the low b bits of ri = ci for i < b; bit b + j of ri = bit i of c(b + j), for j < 8 − b.
           A 128-entry byte permute (or a 64-entry one with a repeated table) ignores the upper bits, so the first b
           codevecs need no unpacking at all.

Page of a layer: for each KV head its streams one after the other, head by head; a page of a model: for each storing
    full-attention layer its page. Which streams a head has is told by `LayerFormat` (`formats.py`):
        separate:   keys (KEY order, norm-corrected scale), then values (VALUE order, unbiased scale); each of head_dim.
                    Keys are less the mean of the sequence's first page of keys, which lies beside the pages
                    (`cache.py`), and times `LayerFormat.balance` where there is one. With `LayerFormat.rotary` it
                    is the mean without positions, turned to each key's
        value only: the position-free dimensions of V, then its rotary dimensions; both in KEY order with an unbiased
                    scale, each with a rotation, codes and a scale of its own. K is rebuilt: k_norm.weight ⊙ V, and RoPE
                    on the rotary part. With h = head_dim / 2 and m = rotary_dim / 2, the rotary part is dimensions
                    0 ... m − 1 and h ... h + m − 1 of the head, in this order; the rest keeps its order.
    Where no kernel will read them, all streams are in TOKEN order: the one exception to the order said here.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import torch
from torch import Tensor

FORMAT_VERSION: Final = 5
PAGE_TOKENS: Final = 128
"""Tokens of a page in the product."""
TOKEN_BLOCK: Final = 32
UNIT_BLOCK: Final = 16
CODEVEC: Final = 64
BUNDLE: Final = 8


class Order(Enum):
    """How codes are grouped; see the module's page."""

    KEY = "key"
    VALUE = "value"
    TOKEN = "token"


def packed_bytes(tokens: int, units: int, bits: int) -> int:
    """Bytes of a packed segment."""
    assert tokens % TOKEN_BLOCK == 0 and units % UNIT_BLOCK == 0, (tokens, units)
    return tokens * units * bits // 8


def codes_in_byte(bits: int) -> int:
    """Codes that lie side by side in a byte of TOKEN order."""
    return 2 if bits <= 4 else 1


def pack(codes: Tensor, bits: int, order: Order) -> Tensor:
    """Packs uint8 codes [..., P, units] into uint8 [..., packed_bytes]."""
    return bundle(_codevecs(codes, bits, order).unflatten(-2, (-1, BUNDLE)), bits).flatten(-3)


def unpack(packed: Tensor, tokens: int, units: int, bits: int, order: Order) -> Tensor:
    """Undoes `pack`: uint8 [..., packed_bytes] → uint8 [..., tokens, units]."""
    assert packed.shape[-1] == packed_bytes(tokens, units, bits), (packed.shape, tokens, units, bits)
    width = tokens * units // BUNDLE if order is Order.TOKEN else CODEVEC
    rows = packed.unflatten(-1, (-1, bits, width))
    return _codes(unbundle(rows, bits).flatten(-3, -2), tokens, units, bits, order)


def _codevecs(codes: Tensor, bits: int, order: Order) -> Tensor:
    """[..., P, units] → [..., codevecs, codes of one]."""
    if order is Order.TOKEN:
        together = codes_in_byte(bits)
        parts: Tensor = codes.flatten(-2).unflatten(-1, (BUNDLE // together, -1, together))
        return parts.transpose(-1, -2).flatten(-3, -2)
    tokens, units = codes.shape[-2:]
    if order is Order.KEY:
        split: Tensor = codes.unflatten(-1, (units // 4, 4)).unflatten(-3, (tokens // TOKEN_BLOCK, 2, 16))
        return split.movedim(-2, -4).flatten(-2).flatten(-4, -2)  # [..., block, u, half, i, j]
    split = codes.unflatten(-1, (units // UNIT_BLOCK, 16)).unflatten(-3, (tokens // 4, 4))  # [..., t, j, u, i]
    return split.movedim(-2, -4).transpose(-1, -2).flatten(-2).flatten(-3, -2)  # [..., u, t, i, j]


def _codes(codevecs: Tensor, tokens: int, units: int, bits: int, order: Order) -> Tensor:
    if order is Order.TOKEN:
        parts = codevecs.unflatten(-2, (-1, codes_in_byte(bits))).transpose(-1, -2)
        vectors: Tensor = parts.flatten(-3).unflatten(-1, (tokens, units))
        return vectors
    if order is Order.KEY:
        split: Tensor = codevecs.unflatten(-1, (16, 4)).unflatten(-3, (tokens // TOKEN_BLOCK, units // 4, 2))
        return split.movedim(-4, -2).flatten(-2).flatten(-4, -2)
    split = codevecs.unflatten(-1, (16, 4)).unflatten(-3, (units // UNIT_BLOCK, tokens // 4))
    return split.transpose(-1, -2).movedim(-4, -2).flatten(-2).flatten(-3, -2)


def bundle(codevecs: Tensor, bits: int) -> Tensor:
    """[..., 8, n] codes → [..., bits, n] rows."""
    if bits in (1, 2, 4):
        return _interleave(codevecs, bits)
    if bits == 3:
        return torch.cat([_interleave(codevecs & 3, 2), _interleave(codevecs >> 2, 1)], -2)
    straight, scattered = codevecs[..., :bits, :], codevecs[..., bits:, :]
    rows = [straight[..., i, :] for i in range(bits)]
    for j in range(BUNDLE - bits):
        rows = [row | (scattered[..., j, :] >> i & 1) << bits + j for i, row in enumerate(rows)]
    return torch.stack(rows, -2)


def unbundle(rows: Tensor, bits: int) -> Tensor:
    """[..., bits, n] rows → [..., 8, n] codes."""
    if bits in (1, 2, 4):
        return _separate(rows, bits)
    if bits == 3:
        return _separate(rows[..., :2, :], 2) | _separate(rows[..., 2:, :], 1) << 2
    straight = rows & (1 << bits) - 1
    scattered = []
    for j in range(BUNDLE - bits):
        code = torch.zeros_like(rows[..., 0, :])
        for i in range(bits):
            code |= (rows[..., i, :] >> bits + j & 1) << i
        scattered.append(code)
    return torch.cat([straight, torch.stack(scattered, -2)], -2)


def _interleave(codevecs: Tensor, bits: int) -> Tensor:
    groups: Tensor = codevecs.unflatten(-2, (bits, 8 // bits))
    rows = groups[..., 0, :]
    for n in range(1, 8 // bits):
        rows = rows | groups[..., n, :] << bits * n
    return rows


def _separate(rows: Tensor, bits: int) -> Tensor:
    mask = (1 << bits) - 1
    separated = torch.stack([rows >> bits * n & mask for n in range(8 // bits)], -2)
    return separated.flatten(-3, -2)
