"""Attention over compressed pages: streaming softmax, a block of pages decoded at a time, never the whole cache.

`decode_attention` takes the quickest path there is: the Triton kernels on a GPU (`gpu/`); on a CPU the native kernel
(`native_attention.py`), or tables in PyTorch (`table_attention.py`); elsewhere what all are held to
(`reference_attention.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final, Protocol

import torch
from torch import Tensor

from g4agent_torch.turboquant import gpu, native_attention, reference_attention, table_attention
from g4agent_torch.turboquant.formats import LayerFormat
from g4agent_torch.turboquant.native import asked, kernel
from g4agent_torch.turboquant.partial import Partial, merged, softmax
from g4agent_torch.turboquant.rotary import WAVE_TOKENS

MAX_SCORES: Final = 1 << 24
"""Scores of a centre that are held at once."""


class _Path(Protocol):
    def __call__(
        self,
        query: Tensor,
        pages: Sequence[Tensor],
        layer: LayerFormat,
        first_position: int,
        bias: Tensor | None = None,
    ) -> Partial: ...


def dense_attention(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Partial:
    """Scaled queries [KV, N, D] over keys and values [KV, S, D]; mask broadcasts to [KV, N, S], True where seen."""
    scores = query @ keys.float().transpose(1, 2)
    weights, lse = softmax(scores if mask is None else scores.masked_fill(~mask, -torch.inf))
    return Partial(weights @ values.float(), lse)


def decode_attention(
    query: Tensor, pages: Sequence[Tensor], layer: LayerFormat, first_position: int, centre: Tensor | None = None
) -> Partial:
    """Queries over all tokens of some pages.

    Args:
        query: Float32 [KV, N, D]: N queries per KV head (heads that share it, times positions), already scaled.
        pages: The layer's part of consecutive pages, uint8 [page_bytes] each; at least one.
        layer: What is in them.
        first_position: Position of the first page's first token.
        centre: What the keys were encoded without, float32 [KV, 1, D], if anything.
    """
    balanced = query if layer.balance is None else query / layer.balance
    path = _path(query, layer)
    if centre is not None and layer.rotary is not None:
        return _with_turning_centre(path, query, balanced, pages, layer, first_position, centre)
    coded = path(balanced, pages, layer, first_position)
    if centre is None:
        return coded
    return Partial(coded.out, coded.lse + (query @ centre.transpose(1, 2))[..., 0])  # the same for all keys


def as_read_here(layer: LayerFormat, device: torch.device) -> LayerFormat:
    """A layer with its pages in the order of the quickest path on this machine."""
    if device.type != "cpu" or gpu.runs_on(device) or asked() == "reference":
        return layer
    if (kernel() is not None and native_attention.supports(layer)) or not table_attention.supports(layer):
        return layer
    return replace(layer, token_order=True)


def _path(query: Tensor, layer: LayerFormat) -> _Path:
    if layer.rotary is None and not layer.token_order and gpu.runs_on(query.device):
        from g4agent_torch.turboquant.gpu import decode_attention as triton_attention

        if triton_attention.supports(layer):
            return _by_triton
    on_cpu = query.device.type == "cpu"
    native = kernel() if on_cpu and not layer.token_order else None
    if native is not None and native_attention.supports(layer):
        return partial(native_attention.decode_attention, native)
    if on_cpu and layer.token_order and asked() != "reference":
        return table_attention.decode_attention
    return reference_attention.decode_attention


def _by_triton(
    query: Tensor, pages: Sequence[Tensor], layer: LayerFormat, first_position: int, bias: Tensor | None = None
) -> Partial:
    from g4agent_torch.turboquant.gpu import decode_attention as triton_attention

    assert bias is None
    return triton_attention.decode_attention(query, pages, layer, first_position)


def _with_turning_centre(
    path: _Path,
    query: Tensor,
    balanced: Tensor,
    pages: Sequence[Tensor],
    layer: LayerFormat,
    first_position: int,
    centre: Tensor,
) -> Partial:
    """A path is given the centre's scores; for some pages at a time, as these are many."""
    assert layer.rotary is not None
    tokens = min(WAVE_TOKENS, MAX_SCORES // (query.shape[0] * query.shape[1]))
    at_once, parts = max(1, tokens // layer.tokens), []
    for start in range(0, len(pages), at_once):
        some = pages if len(pages) <= at_once else pages[start : start + at_once]
        first = first_position + start * layer.tokens
        scores = layer.rotary.scores(query, centre, first, len(some) * layer.tokens)
        parts.append(path(balanced, some, layer, first, scores))
    return merged(parts)
