"""`decode_attention` on a CPU without a kernel: by tables, in PyTorch alone.

Codes become levels by `lookup.py`, a block of pages at a time. Levels, queries, weights and products are bfloat16 where
oneDNN multiplies it, else float32; softmax, and sums over blocks, are float32. In bfloat16 a score is off by up to
0.4 % of itself: beside what codes cost, a tenth where scores are around 5, and two thirds where they are around 60.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from g4agent_torch.one_token import products_of_many_rows
from g4agent_torch.turboquant.codec import SCALE_BYTES, Codec
from g4agent_torch.turboquant.formats import LayerFormat, ValueOnly
from g4agent_torch.turboquant.layout import PAGE_TOKENS
from g4agent_torch.turboquant.lookup import Lookup
from g4agent_torch.turboquant.partial import Partial, merged, softmax
from g4agent_torch.turboquant.reference_attention import unrotated
from g4agent_torch.turboquant.rotary import turned

BLOCK_NUMBERS: Final = 1 << 21
"""Coordinates of a stream that are decoded at a time: they stay near the processor."""
BLOCK_PAGES: Final = 64
"""Pages at most."""


def supports(layer: LayerFormat, query: Tensor) -> bool:
    """Whether this path can read this layer's pages."""
    return query.device.type == "cpu" and layer.tokens == PAGE_TOKENS


@products_of_many_rows()
def decode_attention(
    query: Tensor, pages: list[Tensor], layer: LayerFormat, first_position: int, bias: Tensor | None = None
) -> Partial:
    """See `reference_attention.decode_attention`."""
    shared, parts = layer.value_only, []
    rotated = layer.streams[0].rotation.forward(
        query if shared is None else (query * shared.key_norm)[..., shared.rest]
    )
    at_once = min(BLOCK_PAGES, max(1, BLOCK_NUMBERS // (layer.heads * layer.head_dim * layer.tokens)))
    held = torch.empty(min(at_once, len(pages)), layer.page_bytes, dtype=torch.uint8)
    for start in range(0, len(pages), at_once):
        some, token = pages[start : start + at_once], start * layer.tokens
        packed = torch.stack(some, out=held[: len(some)]).unflatten(1, (layer.heads, -1))
        streams = packed.split([stream.stream_bytes(layer.tokens) for stream in layer.streams], -1)
        keys, values = (_Stream(*one) for one in zip(layer.streams, streams, ("first", "second"), strict=True))
        scores = keys.scores(rotated)
        if shared is not None:
            scores += _rotary_scores(query[..., shared.rotary], values, shared, first_position + token)
        if bias is not None:
            scores += bias[..., token : token + scores.shape[-1]]
        weights, lse = softmax(scores)
        out = values.sums(weights)
        parts.append(Partial(out if shared is None else torch.cat([keys.sums(weights), out], -1), lse))
    out, lse = merged(parts)
    return Partial(unrotated(out, layer), lse)


class _Stream:
    """One stream of a block of pages, decoded.

    Args:
        codec: The stream's.
        packed: Uint8 [pages, KV, stream_bytes].
        name: Of the memory for its levels.
    """

    def __init__(self, codec: Codec, packed: Tensor, name: str) -> None:
        codes, scales = packed.tensor_split([-PAGE_TOKENS * SCALE_BYTES], -1)
        self.codec, self._lookup = codec, _lookup(codec, precision())
        self._levels = self._lookup.levels(codes, name)
        self.scales = scales.contiguous().view(torch.float16).transpose(0, 1).flatten(1).float()[:, None]
        """Float32 [KV, 1, T]."""

    def scores(self, query: Tensor) -> Tensor:
        """Scores of the keys for queries [KV, N, d] in the rotated basis, float32 [KV, N, T]."""
        return self._lookup.scores(query.to(precision()), self._levels) * self.scales

    def vectors(self) -> Tensor:
        """Vectors without their scales, [KV, T, d]."""
        return self._lookup.vectors(self._levels, len(self.scales))

    def sums(self, weights: Tensor) -> Tensor:
        """Sums of the values by weights [KV, N, T], in the rotated basis, float32 [KV, N, d]."""
        return self._lookup.sums((weights * self.scales).to(precision()), self._levels).float()


def _rotary_scores(query: Tensor, values: _Stream, shared: ValueOnly, first_position: int) -> Tensor:
    """Scores of keys that are rebuilt from the rotary part of values, for the queries' rotary dimensions [KV, N, d].

    For k = R(position) y, q · k = (R(−first) q) · R(offset) y = (q1, q2) · cos ⊙ y + (q2, −q1) · sin ⊙ y, where q1 and
    q2 are the turned query's first and second members of pairs: one table of cosines and sines does for every block.
    """
    waves = _waves(shared, values.codec)
    keys = values.vectors() @ waves.basis
    at_start = turned(query, -first_position * shared.frequencies.double()).to(keys.dtype)
    first, second = at_start.chunk(2, -1)
    across = torch.cat([second, -first], -1)
    count = keys.shape[1]
    scores = torch.bmm(at_start, (keys * waves.cosines[:count]).transpose(1, 2)).float()
    scores += torch.bmm(across, (keys * waves.sines[:count]).transpose(1, 2)).float()
    scores *= values.scales
    return scores


@dataclass(frozen=True, slots=True)
class _Waves:
    """What turns levels of rotary values into keys."""

    basis: Tensor
    """Undoes the rotation and applies k_norm, [d, d]."""
    cosines: Tensor
    """Of each position of a block, for both members of each pair, [tokens, d]; and `sines`."""
    sines: Tensor


_made: WeakKeyDictionary[ValueOnly, _Waves] = WeakKeyDictionary()


def _waves(shared: ValueOnly, codec: Codec) -> _Waves:
    if shared not in _made:
        angles = torch.arange(BLOCK_PAGES * PAGE_TOKENS)[:, None] * shared.frequencies.double().repeat(2)
        basis = codec.rotation.matrix.T * shared.key_norm[shared.rotary]
        _made[shared] = _Waves(*(table.to(precision()) for table in (basis, angles.cos(), angles.sin())))
    return _made[shared]


@cache
def _lookup(codec: Codec, dtype: torch.dtype) -> Lookup:
    return Lookup(codec, dtype)


@cache
def precision() -> torch.dtype:
    """Of levels and products."""
    fast = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if fast else torch.float32
