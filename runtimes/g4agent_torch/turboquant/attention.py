"""Attention over compressed pages: streaming softmax, a block of pages decoded at a time, never the whole cache.

`decode_attention` runs the Triton kernels on a GPU (`gpu/`), the native kernel on a CPU where there is one
(`native.py`), and else plain PyTorch.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from g4agent_torch.turboquant import gpu, native_attention
from g4agent_torch.turboquant.formats import LayerFormat
from g4agent_torch.turboquant.layout import PAGE_TOKENS
from g4agent_torch.turboquant.native import Kernel, kernel
from g4agent_torch.turboquant.partial import Partial
from g4agent_torch.turboquant.rotary import WAVE_TOKENS

BLOCK_PAGES: Final = WAVE_TOKENS // PAGE_TOKENS
"""Pages decoded at a time: 4096 tokens keep the decoded block near the processor."""
MAX_SCORES: Final = 1 << 24
"""Scores that are held at once."""


def merge(parts: list[Partial]) -> Tensor:
    """Attention over the keys of all parts, float32 [KV, N, D]."""
    lse = torch.stack([part.lse for part in parts])  # [parts, KV, N]
    weights = torch.softmax(lse, 0)[..., None]
    return (weights * torch.stack([part.out for part in parts])).sum(0)


def dense_attention(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Partial:
    """Scaled queries [KV, N, D] over keys and values [KV, S, D]; mask broadcasts to [KV, N, S], True where seen."""
    return _softmax(query @ keys.float().transpose(1, 2), values.float(), mask)


def decode_attention(
    query: Tensor, pages: list[Tensor], layer: LayerFormat, first_position: int, centre: Tensor | None = None
) -> Partial:
    """Queries over all tokens of some pages.

    Args:
        query: Float32 [KV, N, D]: N queries per KV head (heads that share it, times positions), already scaled.
        pages: The layer's part of consecutive pages, uint8 [page_bytes] each; at least one.
        layer: What is in them.
        first_position: Position of the first page's first token.
        centre: What the keys were encoded without, float32 [KV, 1, D], if anything.
    """
    if centre is None or layer.rotary is not None:
        return _coded_attention(query, pages, layer, first_position, centre)
    coded = _coded_attention(query, pages, layer, first_position, None)
    return Partial(coded.out, coded.lse + (query @ centre.transpose(1, 2))[..., 0])  # the same for all keys


def _coded_attention(
    query: Tensor, pages: list[Tensor], layer: LayerFormat, first_position: int, centre: Tensor | None
) -> Partial:
    """`decode_attention` over keys as they were encoded, or over them and a centre that positions turn."""
    plain = query
    if layer.balance is not None:
        query = query / layer.balance
    if centre is None and gpu.runs_on(query.device):
        from g4agent_torch.turboquant.gpu import decode_attention as triton_attention

        if triton_attention.supports(layer):
            return triton_attention.decode_attention(query, pages, layer, first_position)
    native = kernel() if query.device.type == "cpu" else None
    if native is not None and native_attention.supports(layer, query):
        if centre is None:
            return native_attention.decode_attention(native, query, pages, layer, first_position)
        return _with_turning_centre(native, query, plain, pages, layer, first_position, centre)
    first, second = layer.streams
    if (shared := layer.value_only) is None:
        query = first.rotation.forward(query)
        blocks = []
        for start in range(0, len(pages), BLOCK_PAGES):
            keys, values = _rotated(layer, pages[start : start + BLOCK_PAGES])
            scores = query @ keys.transpose(1, 2)
            if centre is not None:
                scores += _centre_scores(plain, layer, centre, first_position, start * layer.tokens, keys.shape[1])
            blocks.append(_softmax(scores, values, None))
        lse = torch.logsumexp(torch.stack([block.lse for block in blocks]), 0)
        return Partial(second.rotation.inverse(merge(blocks)), lse)
    # q · K = (γ ⊙ q) · V on the position-free dimensions; on the rotary ones K is rebuilt position by position.
    free = first.rotation.forward((query * shared.key_norm)[..., shared.rest])
    turned = query[..., shared.rotary]
    blocks = []
    for start in range(0, len(pages), BLOCK_PAGES):
        rest, rotary = _rotated(layer, pages[start : start + BLOCK_PAGES])
        begin = first_position + start * layer.tokens
        positions = torch.arange(begin, begin + rest.shape[1], device=query.device)
        keys = shared.keys(second.rotation.inverse(rotary), positions)
        scores = free @ rest.transpose(1, 2) + turned @ keys.transpose(1, 2)
        blocks.append(_softmax(scores, torch.cat([rest, rotary], -1), None))
    lse = torch.logsumexp(torch.stack([block.lse for block in blocks]), 0)
    rest, rotary = merge(blocks).split([first.size, second.size], -1)
    out = torch.empty_like(query)
    out[..., shared.rest], out[..., shared.rotary] = first.rotation.inverse(rest), second.rotation.inverse(rotary)
    return Partial(out, lse)


def _with_turning_centre(
    native: Kernel,
    query: Tensor,
    plain: Tensor,
    pages: list[Tensor],
    layer: LayerFormat,
    first_position: int,
    centre: Tensor,
) -> Partial:
    """By the native kernel, which is given the centre's scores; a few queries at a time, as these are many."""
    tokens = len(pages) * layer.tokens
    rows = max(1, MAX_SCORES // (layer.heads * tokens))
    parts = []
    for some, plain_ones in zip(query.split(rows, 1), plain.split(rows, 1), strict=True):
        blocks = [
            _centre_scores(plain_ones, layer, centre, first_position, start, min(WAVE_TOKENS, tokens - start))
            for start in range(0, tokens, WAVE_TOKENS)
        ]
        bias = torch.cat(blocks, -1)
        parts.append(native_attention.decode_attention(native, some, pages, layer, first_position, bias))
    return Partial(torch.cat([part.out for part in parts], 1), torch.cat([part.lse for part in parts], 1))


def _centre_scores(
    query: Tensor, layer: LayerFormat, centre: Tensor, first_position: int, start: int, count: int
) -> Tensor:
    """Scores of a centre that positions turn, at `count` tokens of the pages from token `start` on, [KV, N, count]."""
    assert layer.rotary is not None
    return layer.rotary.scores(query, centre, first_position + start, count)


def _rotated(layer: LayerFormat, pages: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Both streams in their rotated basis, float32 [KV, tokens, size]."""
    first, second = (
        stream.dequantise(part, layer.tokens).transpose(0, 1).flatten(1, 2)
        for stream, part in zip(layer.streams, layer.split(pages), strict=True)
    )
    return first, second


def _softmax(scores: Tensor, values: Tensor, mask: Tensor | None) -> Partial:
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    lse = torch.logsumexp(scores, -1)
    weights = torch.exp(scores - lse.clamp(min=torch.finfo(torch.float32).min)[..., None])
    return Partial(weights @ values, lse)
