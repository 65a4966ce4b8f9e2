"""Attention over a part of the keys."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Partial(NamedTuple):
    """Attention over some of the keys, to be merged with that over others."""

    out: Tensor
    """Normalised over these keys, float32 [KV, N, D]."""
    lse: Tensor
    """Log of the sum of exponentials of the scores, float32 [KV, N]; −inf where no key is seen."""
