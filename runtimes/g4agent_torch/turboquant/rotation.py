"""A seeded orthogonal rotation that makes the coordinates of any vector look normal: random signs, then Hadamard.

TurboQuant (arXiv 2504.19874) rotates by a dense random matrix. The randomised Hadamard transform gives the same
distortion once each vector carries its own scale, costs O(d log d), and needs no d × d matrix.

Everything is element-wise float32 in a fixed order, so a vector gives the same bits alone as in a batch, and a native
kernel that does the same additions gives them too.
"""

from __future__ import annotations

import hashlib
import math
from functools import cache, cached_property
from typing import Final

import torch
from torch import Tensor

SEED: Final = b"g4agent turboquant 1"
"""Part of the page format: other signs make other codes."""
PALEY_ORDER: Final = 12


class Rotation:
    """x → Hadamard(signs · x) / √d, for vectors of `size` coordinates.

    The Hadamard matrix is Sylvester's for a power of two. For 12 · 2^k (the 384 position-free dimensions of a Gemma 4
    global head) it is Paley's of order 12 ⊗ Sylvester's: coordinate i · 2^k + j belongs to row i of the first and to
    row j of the second; the Sylvester stages come first.

    Args:
        size: 2^k, or 12 · 2^k.
    """

    def __init__(self, size: int) -> None:
        if not is_rotatable(size):
            raise ValueError(f"No Hadamard matrix of order {size} here: use 2^k or {PALEY_ORDER} · 2^k.")
        self.size = size
        self.signs = _signs(size)
        self.norm = 1 / math.sqrt(size)

    @cached_property
    def matrix(self) -> Tensor:
        """The same as a matrix [d, d]: x @ matrix is `forward`, y @ matrix.T `inverse`. Faster for a few vectors, but
        not to the bit."""
        return self.forward(torch.eye(self.size))

    def forward(self, x: Tensor) -> Tensor:
        """Rotates [..., d] (any float dtype) to float32 [..., d]."""
        return hadamard(x.float() * self.signs.to(x.device)) * self.norm

    def inverse(self, y: Tensor) -> Tensor:
        """Undoes `forward`, up to rounding."""
        return hadamard(y.float(), transposed=True) * self.norm * self.signs.to(y.device)


def is_rotatable(size: int) -> bool:
    """Whether there is a `Rotation` of this size."""
    power = size // PALEY_ORDER if size % 3 == 0 and size % PALEY_ORDER == 0 else size
    return power > 0 and power & (power - 1) == 0


def hadamard(x: Tensor, *, transposed: bool = False) -> Tensor:
    """The unnormalised transform of [..., d]; `transposed` matters for orders of 12 · 2^k only."""
    size = x.shape[-1]
    step, power = 1, size if size & (size - 1) == 0 else size // PALEY_ORDER
    while step < power:  # butterflies at distance 1, 2, 4, ...
        pairs = x.unflatten(-1, (-1, 2, step))
        low, high = pairs.unbind(-2)
        x = torch.stack((low + high, low - high), -2).flatten(-3)
        step *= 2
    if power == size:
        return x
    rows = x.unflatten(-1, (PALEY_ORDER, power)).unbind(-2)
    matrix = paley()
    if transposed:
        matrix = tuple(zip(*matrix, strict=True))
    return torch.stack([_signed_sum(rows, signs) for signs in matrix], -2).flatten(-2)


@cache
def paley() -> tuple[tuple[int, ...], ...]:
    """A Hadamard matrix of order 12, Paley's first construction over the integers modulo 11."""
    prime = PALEY_ORDER - 1
    squares = {i * i % prime for i in range(1, prime)}

    def entry(row: int, column: int) -> int:
        if row == column:
            return 1
        if row == 0 or column == 0:
            return 1 if row == 0 else -1
        return 1 if (row - column) % prime in squares else -1

    return tuple(tuple(entry(i, j) for j in range(PALEY_ORDER)) for i in range(PALEY_ORDER))


@cache
def paley_matrix() -> Tensor:
    """`paley` as float32 [12, 12]."""
    return torch.tensor(paley(), dtype=torch.float32)


def _signed_sum(rows: tuple[Tensor, ...], signs: tuple[int, ...]) -> Tensor:
    total = rows[0] if signs[0] > 0 else -rows[0]
    for row, sign in zip(rows[1:], signs[1:], strict=True):
        total = total + row if sign > 0 else total - row
    return total


def _signs(size: int) -> Tensor:
    """±1 for each coordinate, from SHA-256: bit i of the stream (least significant first) set means −1."""
    stream = b"".join(
        hashlib.sha256(SEED + size.to_bytes(4, "little") + block.to_bytes(4, "little")).digest()
        for block in range(-(-size // 256))
    )
    bits = [stream[i // 8] >> (i % 8) & 1 for i in range(size)]
    return 1 - 2 * torch.tensor(bits, dtype=torch.float32)
