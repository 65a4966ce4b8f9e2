"""`decode_attention` on a CPU without a kernel: by tables, in PyTorch alone, over pages in TOKEN order.

Codes become levels by `lookup.py`, a block of pages at a time. Softmax, and sums over blocks, are float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
from g4agent_torch.turboquant.lookup import MAX_ROW, Factor, Lookup, buffer, multiplies_bytes
from g4agent_torch.turboquant.partial import Partial, merged
from g4agent_torch.turboquant.reference_attention import unrotated
from g4agent_torch.turboquant.rotary import turned

BLOCK_NUMBERS: Final = 1 << 21
"""Coordinates of a stream that are decoded at a time: they stay near the processor."""
BLOCK_SCORES: Final = 1 << 21
"""Scores of a block, which bound its pages where queries are many."""
BLOCK_PAGES: Final = 64
"""Pages of a block at most."""
MERGED: Final = 8
"""Blocks whose outputs are held before they are merged: those of a prompt's many queries are large."""


def supports(layer: LayerFormat) -> bool:
    """Whether this path can read pages of this layer, if these are in its order."""
    return layer.tokens == PAGE_TOKENS and layer.head_dim <= MAX_ROW


@products_of_many_rows()
def decode_attention(
    query: Tensor, pages: Sequence[Tensor], layer: LayerFormat, first_position: int, bias: Tensor | None = None
) -> Partial:
    """See `reference_attention.decode_attention`."""
    shared, parts = layer.value_only, []
    rotated = layer.streams[0].rotation.forward(
        query if shared is None else (query * shared.key_norm)[..., shared.rest]
    )
    factor = _lookup(layer.streams[0], precision()).factor(rotated)
    page = layer.heads * layer.tokens
    at_once = min(BLOCK_PAGES, max(1, min(BLOCK_NUMBERS // layer.head_dim, BLOCK_SCORES // query.shape[1]) // page))
    rotary = query if shared is None else query[..., shared.rotary]
    held = buffer("pages", (min(at_once, len(pages)), layer.page_bytes), torch.uint8)
    for start in range(0, len(pages), at_once):
        some, token = pages[start : start + at_once], start * layer.tokens
        packed = torch.stack(tuple(some), out=held[: len(some)]).unflatten(1, (layer.heads, -1))
        streams = packed.split([stream.stream_bytes(layer.tokens) for stream in layer.streams], -1)
        first = _Stream(layer.streams[0], streams[0], "levels")
        scores = first.scores(factor)
        # values take the place of the keys' levels, which are done with; of values alone both parts are needed
        second = _Stream(layer.streams[1], streams[1], "levels" if shared is None else "rotary levels")
        if shared is not None:
            scores += _rotary_scores(rotary, second, shared, first_position + token)
        if bias is not None:
            scores += bias[..., token : token + scores.shape[-1]]
        most = scores.amax(-1, keepdim=True)
        weights = scores.sub_(most).exp_()
        total = weights.sum(-1, keepdim=True)
        out = second.sums(weights)
        if shared is not None:
            out = torch.cat([first.sums(weights), out], -1)
        parts.append(Partial(out.div_(total), most.add_(total.log_())[..., 0]))
        if len(parts) == MERGED:
            parts = [merged(parts)]
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
        self.codec, self.lookup = codec, _lookup(codec, precision())
        self.levels = self.lookup.levels(codes, name)
        """In the rotated basis, [KV, T, d]."""
        self.scales = scales.contiguous().view(torch.float16).transpose(0, 1).flatten(1).float()[:, None]
        """Float32 [KV, 1, T]."""

    def scores(self, query: Factor) -> Tensor:
        """Scores of the keys for queries [KV, N, d] in the rotated basis, float32 [KV, N, T]."""
        return self.lookup.scores(query, self.levels).mul_(self.scales)

    def sums(self, weights: Tensor) -> Tensor:
        """Sums of the values by weights [KV, N, T], in the rotated basis, float32 [KV, N, d]."""
        return self.lookup.sums(weights * self.scales, self.levels)


def _rotary_scores(query: Tensor, values: _Stream, shared: ValueOnly, first_position: int) -> Tensor:
    """Scores of keys that are rebuilt from the rotary part of values, for the queries' rotary dimensions [KV, N, d].

    k at first + offset is R(first) R(offset) y: keys turn by their offset in the block, for which one table of cosines
    and sines does, and queries by −first.
    """
    waves = _waves(shared, values.codec)
    keys = values.lookup.signed_sums(values.levels, waves.signs).mul_(waves.norm)
    torch.view_as_complex(keys.unflatten(-1, (-1, 2))).mul_(waves.turning[: keys.shape[1]])
    query = turned(query, -first_position * shared.frequencies.double())
    return torch.bmm(_pairs_together(query), keys.transpose(1, 2)).mul_(values.scales * values.lookup.unit)


@dataclass(frozen=True, slots=True)
class _Waves:
    """What turns levels of rotary values into keys."""

    signs: Tensor
    """Undoes the rotation but for its norm, and puts members of a pair side by side: ±1, float32 [d, d]."""
    norm: Tensor
    """The rotation's, times k_norm, [d]."""
    turning: Tensor
    """How pairs turn by each position of a block, complex64 [tokens, d / 2]."""


_made: WeakKeyDictionary[ValueOnly, _Waves] = WeakKeyDictionary()


def _waves(shared: ValueOnly, codec: Codec) -> _Waves:
    if shared not in _made:
        angles = torch.arange(BLOCK_PAGES * PAGE_TOKENS)[:, None] * shared.frequencies.double()
        signs = (codec.rotation.matrix.T * math.sqrt(codec.size)).round()
        norm = shared.key_norm[shared.rotary] * codec.rotation.norm
        turning = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)
        _made[shared] = _Waves(_pairs_together(signs), _pairs_together(norm), turning)
    return _made[shared]


def _pairs_together(x: Tensor) -> Tensor:
    """[..., d], first members of all pairs and then second ones → [..., d], pair by pair."""
    pairs: Tensor = x.unflatten(-1, (2, -1)).transpose(-1, -2)
    return pairs.flatten(-2)


@cache
def _lookup(codec: Codec, dtype: torch.dtype) -> Lookup:
    return Lookup(codec, dtype)


@cache
def precision() -> torch.dtype:
    """Of levels."""
    return torch.int8 if multiplies_bytes() else torch.float32
