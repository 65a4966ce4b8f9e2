"""Codebooks for rotated coordinates, which are N(0, 1) once the vector's norm is divided out.

Scalar codebooks are Lloyd-Max quantisers (TurboQuant, arXiv 2504.19874, section 3.1, in the limit of many dimensions);
pair codebooks are their 2-D counterpart, for rates between whole bits. `scripts/make_codebooks.py` computes them.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import Any, Final

import torch
from torch import Tensor

_DATA: Final = files(__package__) / "codebooks.json"
GRID_STEPS: Final = 64
"""Cells per unit length of the grid that finds the nearest pair."""
GRID_HALF: Final = 4 * GRID_STEPS
"""The grid covers coordinates from −4 to 4; what lies outside counts as on its edge."""


class Codebook:
    """2^bits levels of `dims` coordinates each.

    A scalar code is the number of midpoints between neighbouring levels that the coordinate exceeds. A pair code is
    the level nearest to the centre of the grid cell that the pair lies in: cell (floor(64 u0), floor(64 u1)), clamped
    to [−256, 255], and −256 for what is no number. The grid costs 0.2 % distortion and makes the code of a vector one
    table lookup, everywhere alike.

    Args:
        levels: Float32 [2^bits, dims], dims 1 or 2; scalar levels ascend.
    """

    def __init__(self, levels: Tensor) -> None:
        self.levels = levels
        self.dims = levels.shape[1]
        self.bits = len(levels).bit_length() - 1
        axis = torch.arange(-GRID_HALF, GRID_HALF) / GRID_STEPS  # lower edges of the cells
        if self.dims == 1:
            midpoints = (levels[1:, 0] + levels[:-1, 0]) / 2
            self._table = (axis[:, None] > midpoints).sum(1).to(torch.uint8)
            self._midpoints = torch.cat([midpoints, torch.tensor([torch.inf])])
        else:
            centres = torch.cartesian_prod(axis, axis) + 0.5 / GRID_STEPS
            self._table = _nearest(centres, levels)
            self._midpoints = levels.new_empty(0)

    def quantise(self, u: Tensor) -> Tensor:
        """Float32 [..., units · dims] → codes, uint8 [..., units]."""
        self._move(u.device)
        cells = torch.floor(u * GRID_STEPS).nan_to_num_(-GRID_HALF).clamp_(-GRID_HALF, GRID_HALF - 1)
        cells = cells.to(torch.int32) + GRID_HALF
        if self.dims == 2:
            x, y = cells.unflatten(-1, (-1, 2)).unbind(-1)
            return self._table[x * 2 * GRID_HALF + y]
        below = self._table[cells]  # at most one midpoint lies in the cell: one comparison decides
        return below + (u > self._midpoints[below.int()]).to(torch.uint8)

    def lookup(self, codes: Tensor) -> Tensor:
        """Codes, uint8 [..., units] → levels, float32 [..., units · dims]."""
        self._move(codes.device)
        return self.levels.index_select(0, codes.flatten().int()).view(*codes.shape[:-1], -1)

    def tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """What a kernel needs to quantise: the code of each cell, uint8 (of a scalar's cell: the lower one), the
        midpoints (none for pairs), and the levels."""
        return self._table, self._midpoints, self.levels

    def frequencies(self) -> Tensor:
        """How often normal data has each code, float32 [codes] on the CPU."""
        if self.dims == 1:
            return _between(self._midpoints[:-1].cpu()).float()
        cells = _between(torch.arange(1 - GRID_HALF, GRID_HALF) / GRID_STEPS)
        found = torch.zeros(len(self.levels), dtype=torch.float64)
        return found.index_add_(0, self._table.cpu().int(), torch.outer(cells, cells).flatten()).float()

    def _move(self, device: torch.device) -> None:
        if device != self.levels.device:
            self.levels, self._table = self.levels.to(device), self._table.to(device)
            self._midpoints = self._midpoints.to(device)


def _between(edges: Tensor) -> Tensor:
    """How much of normal data lies below [n] ascending edges, between them and above, float64 [n + 1]."""
    below: Tensor = torch.special.ndtr(edges.double())
    return below.diff(prepend=below.new_zeros(1), append=below.new_ones(1))


def _nearest(points: Tensor, levels: Tensor) -> Tensor:
    """The index of the level nearest to each of [n, 2] points, uint8 [n]."""
    half_norms = levels.square().sum(1) / 2
    return torch.cat([(part @ levels.T - half_norms).argmax(1).to(torch.uint8) for part in points.split(16_384)])


@cache
def scalar(bits: int) -> Codebook:
    """Lloyd-Max at 1 to 5 bits per coordinate."""
    return Codebook(_levels("scalar", bits))


@cache
def pair(bits: int) -> Codebook:
    """2-D codebook at 3 to 7 bits per pair of coordinates."""
    return Codebook(_levels("pair", bits))


@cache
def fingerprint() -> str:
    """SHA-256 of all codebooks, in hex: names them in a page's address."""
    return hashlib.sha256(_DATA.read_bytes()).hexdigest()


@cache
def _books() -> Any:
    return json.loads(_DATA.read_text())


def _levels(kind: str, bits: int) -> Tensor:
    return torch.tensor(_books()[kind][str(bits)], dtype=torch.float32)
