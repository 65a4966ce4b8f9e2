"""The next token from logits, with random numbers that depend on seed and position only."""

from __future__ import annotations

import torch
from torch import Tensor

from g4agent.errors import ModelLoadError
from g4agent.ports.runtime import SampledToken, Sampling

_MASK = (1 << 64) - 1


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) for one position of a sequence: two rounds of SplitMix64 (Steele, Lea and Flood 2014).

    There is no generator state to save, so a resumed sequence draws the same numbers.
    """
    return (_mix(_mix(seed & _MASK) ^ position) >> 11) * 2.0**-53


def _mix(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def choose(logits: Tensor, sampling: Sampling, position: int, allowed: Tensor | None = None) -> SampledToken:
    """The token for `position`: temperature, then top-k, then top-p, in transformers' order.

    Args:
        logits: Float32 [vocabulary].
        position: Index that the token will have in the sequence.
        allowed: Bool [vocabulary], True for the tokens to choose from; None for all.

    Raises:
        ModelLoadError: The logits are not numbers, so no token is likelier than another.
    """
    total_mass = logits.logsumexp(0)
    if not total_mass.isfinite():
        raise ModelLoadError(
            f"The model's logits at position {position} are not numbers.",
            hint="The weights are damaged, or too large for their precision: use bfloat16 or float32.",
        )
    if allowed is not None:
        logits = logits.masked_fill(~allowed.to(logits.device), float("-inf"))
    if sampling.temperature == 0:
        token = int(logits.argmax())
    else:
        size = logits.shape[0]
        values, ids = logits.topk(min(sampling.top_k or size, size))  # descending
        probabilities = torch.softmax(values.cpu().double() / sampling.temperature, 0)
        total = probabilities.cumsum(0)
        # Kept: the shortest head that holds top_p of the mass, at least the first.
        kept = max(1, int(((total - probabilities) < sampling.top_p).sum()))
        drawn = uniform(sampling.seed, position) * total[kept - 1]
        token = int(ids[min(int(torch.searchsorted(total[:kept], drawn, right=True)), kept - 1)])
    kept_mass = total_mass if allowed is None else logits.logsumexp(0)
    return SampledToken(
        token, logprob=float(logits[token] - kept_mass), allowed_mass=min(1.0, float((kept_mass - total_mass).exp()))
    )
