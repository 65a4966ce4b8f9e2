"""Codebooks in integers: levels of a byte each, for products of integers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import torch
from torch import Tensor

from g4agent_torch.turboquant.codebooks import Codebook

MOST: Final = 127
"""A byte's largest whole number."""
MAX_MOVES: Final = 8
"""Levels per coordinate that may be rounded the other way."""
MAX_MOVE_ERROR: Final = 0.8
"""Units by which such a level may be off."""


@dataclass(frozen=True, slots=True)
class WholeLevels:
    """The codebooks of a stream's segments in integers of one unit: int8 [coordinate of a code, code]."""

    main: Tensor
    tail: Tensor
    unit: float


@cache
def whole_levels(main: Codebook, tail: Codebook) -> WholeLevels:
    """Levels in the unit of which main levels of normal data are nearly multiples."""
    exact, last = main.levels.cpu(), tail.levels.cpu()
    units = max(exact.abs().max().item(), last.abs().max().item()) / (MOST - torch.arange(128) / 8)
    off = (exact - (exact / units[:, None, None]).round() * units[:, None, None]).square()
    unit = units[(off * main.frequencies()[:, None]).sum((1, 2)).argmin()].item()
    return WholeLevels(_rounded(main, unit), _rounded(tail, unit), unit)


def _rounded(book: Codebook, unit: float) -> Tensor:
    """Levels [codes, dims] in units. Their rounding errors cancel, or sums over many values would drift."""
    exact, frequency = book.levels.cpu() / unit, book.frequencies()
    rounded = exact.round()
    for axis in range(book.dims):
        for _ in range(MAX_MOVES):
            drift = ((rounded - exact)[:, axis] * frequency).sum()
            moved = rounded[:, axis] - drift.sign()
            better = (drift - drift.sign() * frequency).abs() < drift.abs() - frequency / 4
            errors = torch.where(better & (moved.abs() <= MOST), (moved - exact[:, axis]).abs(), torch.inf)
            if errors.min() > MAX_MOVE_ERROR:
                break
            rounded[errors.argmin(), axis] = moved[errors.argmin()]
    return rounded.to(torch.int8).T.contiguous()
