"""TurboQuant's two-stage form, algorithm 2 (arXiv 2504.19874): codes of the vector, and one sign bit per coordinate of
a random projection of what they miss. Inner products are unbiased.

Here so that the paper's claims can be checked on this code. The product does not use it: at equal bytes, an unbiased
scale alone has several times less variance (tests hold that).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from g4agent_torch.turboquant import codebooks
from g4agent_torch.turboquant.layout import Order, pack, unpack
from g4agent_torch.turboquant.rotation import Rotation


@dataclass(frozen=True, slots=True)
class ProdVectors:
    """Encoded vectors; packed as segments in KEY order are."""

    codes: Tensor
    """Scalar codes of bits − 1, uint8 [bytes]."""
    signs: Tensor
    """Of the projected residual, uint8 [bytes]."""
    norms: Tensor
    """Of vector and residual, float16 [P, 2]."""

    @property
    def bytes(self) -> int:
        """What the storages hold."""
        return sum(part.untyped_storage().nbytes() for part in (self.codes, self.signs, self.norms))


class ProdCodec:
    """Vectors [P, d], P and d multiples of 32, at `bits` per coordinate (sign bit included) + 32 bits of norms.

    Args:
        size: Coordinates.
        bits: 2 to 6.
        seed: Of the projection.
    """

    def __init__(self, size: int, bits: int, seed: int = 0) -> None:
        self.size, self.bits = size, bits
        self.rotation = Rotation(size)
        self._book = codebooks.scalar(bits - 1)
        self._projection = torch.randn(size, size, generator=torch.Generator().manual_seed(seed))

    def encode(self, x: Tensor) -> ProdVectors:
        y = self.rotation.forward(x)
        norm = y.norm(dim=-1, keepdim=True).half().float()
        codes = self._book.quantise(torch.where(norm > 0, y * math.sqrt(self.size) / norm, 0.0))
        residual = y - self._book.lookup(codes) * norm / math.sqrt(self.size)
        signs = (residual @ self._projection.T >= 0).to(torch.uint8)
        norms = torch.cat([norm, residual.norm(dim=-1, keepdim=True)], -1).half()
        return ProdVectors(pack(codes, self.bits - 1, Order.KEY), pack(signs, 1, Order.KEY), norms)

    def decode(self, vectors: ProdVectors) -> Tensor:
        """→ float32 [P, d], whose inner products with any vector are unbiased."""
        tokens = len(vectors.norms)
        codes = unpack(vectors.codes, tokens, self.size, self.bits - 1, Order.KEY)
        signs = unpack(vectors.signs, tokens, self.size, 1, Order.KEY).float() * 2 - 1
        norm, missed = vectors.norms.float().split(1, -1)
        first = self._book.lookup(codes) * norm / math.sqrt(self.size)
        second = math.sqrt(math.pi / 2) / self.size * missed * (signs @ self._projection)
        return self.rotation.inverse(first + second)
