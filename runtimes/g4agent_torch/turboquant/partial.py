"""Attention over a part of the keys."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Partial(NamedTuple):
    """Attention over some of the keys, to be merged with that over others."""

    out: Tensor
    """Normalised over these keys, float32 [KV, N, D]."""
    lse: Tensor
    """Log of the sum of exponentials of the scores, float32 [KV, N]; −inf where no key is seen."""


def softmax(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of the keys, float32 [KV, N, S], and `Partial.lse`, of scores [KV, N, S]; −inf where none is seen."""
    lse = torch.logsumexp(scores, -1)
    return torch.exp(scores - lse.clamp(min=torch.finfo(torch.float32).min)[..., None]), lse


def merged(parts: list[Partial]) -> Partial:
    """Attention over the keys of all parts."""
    lse = torch.stack([part.lse for part in parts])  # [parts, KV, N]
    weights = torch.softmax(lse, 0)[..., None]
    out = (weights * torch.stack([part.out for part in parts])).sum(0)
    return Partial(out, torch.logsumexp(lse, 0))
