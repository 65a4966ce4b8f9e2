"""Rotary position embeddings on keys: taking positions out, and the scores of one vector put at every position."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

WAVE_TOKENS: Final = 4096
"""Positions that `Rotary` keeps cosines and sines of; it turns queries to get at the others."""


def turned(x: Tensor, angles: Tensor) -> Tensor:
    """Rotates x [..., D] by angles [..., D / 2]; pair i: dimensions i and D / 2 + i."""
    cos, sin = angles.cos().to(x), angles.sin().to(x)
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Rotary:
    """How a model turns keys by their position, where all dimensions turn.

    Angles get large, so they are float64, and on the CPU, as not every device has that.
    """

    frequencies: Tensor
    """Radians per position of each pair, float64 [D / 2], on the CPU."""
    device: torch.device | None = None
    """Where the keys are; None: on the CPU."""
    waves: Tensor = field(init=False)
    """Cosines, then sines, of the first `WAVE_TOKENS` positions, float32 [D, WAVE_TOKENS]."""

    def __post_init__(self) -> None:
        angles = self.frequencies[:, None] * torch.arange(WAVE_TOKENS)
        object.__setattr__(self, "waves", torch.cat([angles.cos(), angles.sin()]).float().to(self.device))

    def at(self, vectors: Tensor, positions: Tensor) -> Tensor:
        """Vectors [..., T or 1, D] → turned to positions [T], int64 on the CPU; at negative ones: turned back."""
        return turned(vectors, positions.double()[:, None] * self.frequencies)

    def scores(self, query: Tensor, vector: Tensor, first: int, count: int) -> Tensor:
        """Products of queries with one vector at positions first, first + 1, …

        q · R(first + j) m = (R(−first) q) · R(j) m: two factors for each pair, of its cosine and its sine.

        Args:
            query: Float32 [KV, N, D].
            vector: Float32 [KV, 1, D].
            first: The first position.
            count: How many, at most `WAVE_TOKENS`.

        Returns:
            Float32 [KV, N, count].
        """
        (q1, q2), (m1, m2) = turned(query, -first * self.frequencies).chunk(2, -1), vector.chunk(2, -1)
        return torch.cat([q1 * m1 + q2 * m2, q2 * m1 - q1 * m2], -1) @ self.waves[:, :count]
