"""`decode_attention` as it is defined: vectors decoded in float32, on any device. What all other paths are held to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from g4agent_torch.turboquant.formats import LayerFormat
from g4agent_torch.turboquant.layout import PAGE_TOKENS
from g4agent_torch.turboquant.partial import Partial, merged, softmax

BLOCK_PAGES: Final = 4096 // PAGE_TOKENS
"""Pages decoded at a time, so that there is never a decoded cache."""


def decode_attention(
    query: Tensor, pages: Sequence[Tensor], layer: LayerFormat, first_position: int, bias: Tensor | None = None
) -> Partial:
    """See `attention.decode_attention`; the query is balanced, and `bias` added to scores, float32 [KV, N, tokens]."""
    first, second = layer.streams
    shared, parts = layer.value_only, []
    if shared is None:
        rotated = first.rotation.forward(query)
    else:  # q · K = (γ ⊙ q) · V on the position-free dimensions; on the rotary ones K is rebuilt position by position
        rotated, turned = first.rotation.forward((query * shared.key_norm)[..., shared.rest]), query[..., shared.rotary]
    for start in range(0, len(pages), BLOCK_PAGES):
        keys, values = _rotated(layer, pages[start : start + BLOCK_PAGES])
        token, count = start * layer.tokens, keys.shape[1]
        scores = rotated @ keys.transpose(1, 2)
        if shared is not None:
            positions = torch.arange(first_position + token, first_position + token + count, device=query.device)
            rebuilt = shared.keys(second.rotation.inverse(values), positions)
            scores += turned @ rebuilt.transpose(1, 2)
            values = torch.cat([keys, values], -1)
        if bias is not None:
            scores += bias[..., token : token + count]
        weights, lse = softmax(scores)
        parts.append(Partial(weights @ values, lse))
    out, lse = merged(parts)
    return Partial(unrotated(out, layer), lse)


def unrotated(out: Tensor, layer: LayerFormat) -> Tensor:
    """Outputs [KV, N, D] in the bases of the value's streams, one after the other → as the model has them."""
    first, second = layer.streams
    if (shared := layer.value_only) is None:
        return second.rotation.inverse(out)
    rest, rotary = out.split([first.size, second.size], -1)
    whole = torch.empty_like(out)
    whole[..., shared.rest], whole[..., shared.rotary] = first.rotation.inverse(rest), second.rotation.inverse(rotary)
    return whole


def _rotated(layer: LayerFormat, pages: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Both streams in their rotated basis, float32 [KV, tokens, size]."""
    first, second = (
        stream.dequantise(part, layer.tokens).transpose(0, 1).flatten(1, 2)
        for stream, part in zip(layer.streams, layer.split(pages), strict=True)
    )
    return first, second
