"""Codebooks in integers: levels of a byte each, for products of integers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import torch
from torch import Tensor

from g4agent_torch.turboquant.codebooks import Codebook

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
def whole_levels(main: Codebook, tail: Codebook, most: int) -> WholeLevels:
    """Levels of at most `most` units, of the unit of which main levels of normal data are nearly multiples."""
    exact, last = main.levels.cpu(), tail.levels.cpu()
    units = max(exact.abs().max().item(), last.abs().max().item()) / (most - torch.arange(128) / 8)
    off = (exact - (exact / units[:, None, None]).round() * units[:, None, None]).square() * _frequency(exact)[:, None]
    unit = units[off.sum((1, 2)).argmin()].item()
    return WholeLevels(_rounded(exact, unit, most), _rounded(last, unit, most), unit)


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
