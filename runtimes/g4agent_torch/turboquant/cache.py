"""The compressed cache in the model: full-attention layers keep pages, and a full-precision start and tail.

Which tokens a query sees in which precision depends on its position alone, never on how the prompt was cut into chunks:
the query at position t reads the first `SINKS` tokens and the last `TAIL_PAGES` whole pages before it in full
precision, what lies behind them too, and every page in between as codes. A page is encoded once, from full precision.
"""

from __future__ import annotations

from operator import is_
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import CacheLayerMixin

from g4agent.errors import ConfigError, ModelLoadError
from g4agent_torch.attention import causal_mask, packed_sdpa
from g4agent_torch.kv import Span, extended
from g4agent_torch.turboquant.attention import decode_attention, dense_attention
from g4agent_torch.turboquant.formats import LayerFormat
from g4agent_torch.turboquant.partial import Partial, merged
from g4agent_torch.turboquant.slabs import Pages, in_huge_pages

PAGED: Final = "g4agent_paged"
"""Name under which `paged_attention` is registered."""
SINKS: Final = 16
"""First tokens that stay in full precision: attention rests on them. Pages start behind them."""
TAIL_PAGES: Final = 1
"""Whole pages before a query that it reads in full precision."""


class PagedLayer(CacheLayerMixin):
    """A full-attention layer of one sequence. `update` returns the layer itself, for `paged_attention` to read.

    Pages hold positions SINKS + i · P onwards; `tail` holds the newest positions, and at first all.
    """

    is_sliding = False

    def __init__(self, layer: LayerFormat) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.format = layer
        self.pages: list[Tensor] = []
        """Uint8 [page_bytes] each, never written again."""
        self._read = Pages()
        self.sinks: tuple[Tensor, Tensor] | None = None
        """Keys and values [1, KV, SINKS, D], once there are pages."""
        self.centre: Tensor | None = None
        """What keys are encoded without, float32 [KV, 1, D]: the mean of the first page's. None where only V is kept.

        With `LayerFormat.rotary` it is the mean of what they were before positions turned them, and turns with them.
        Half of what keys are, or more, is the same in all of them: softmax doesn't see it, and a codec that has to
        carry it loses half a bit or more of what differs.
        """
        self.span: Span | None = None

    @property
    def length(self) -> int:
        return 0 if self.span is None else self.span.end

    def coded_pages(self, position: int) -> int:
        """Pages that the query at `position` reads as codes."""
        return max(0, (position + 1 - SINKS) // self.format.tokens - TAIL_PAGES)

    def start_of(self, page: int) -> int:
        """The position of a page's first token."""
        return SINKS + page * self.format.tokens

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.span = Span.empty(key_states, value_states, TAIL_PAGES * self.format.tokens)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Adds [1, KV, Q, D] and encodes the pages that the last of them reads as codes.

        Raises:
            ConfigError: There is more than one sequence.
            ModelLoadError: A page's keys or values are not all numbers.
        """
        if len(key_states) != 1:
            raise ConfigError(
                f"A compressed cache holds one sequence, not {len(key_states)}.", hint="Give each a cache of its own."
            )
        if self.span is None:
            self.lazy_initialization(key_states, value_states)
        assert self.span is not None
        coded = min(self.coded_pages(self.length), len(self.pages))  # a page that is due now is encoded from its rows
        kept = self.start_of(coded) if coded else 0
        self.span = extended(self.span, key_states, value_states, kept)
        for page in range(len(self.pages), self.coded_pages(self.length - 1)):
            if page == 0:
                keys, values = self.span.rows(0, SINKS)
                self.sinks = keys.clone(), values.clone()
            keys, values = self.span.rows(self.start_of(page), self.start_of(page + 1))
            self.pages.append(self._encode(page, keys[0], values[0]))
        return self, self

    def _encode(self, page: int, keys: Tensor, values: Tensor) -> Tensor:
        """Keys and values [KV, P, D] of a page → its bytes."""
        if not (keys.sum(dtype=torch.float32) + values.sum(dtype=torch.float32)).isfinite():  # NaN and ∞ have no code
            raise ModelLoadError(
                f"Keys or values from position {self.start_of(page)} on are not all numbers.",
                hint="The weights are damaged, or too large for their precision: use bfloat16 or float32.",
            )
        if self.format.value_only is None:
            keys, rotary = keys.float().contiguous(), self.format.rotary
            positions = torch.arange(self.start_of(page), self.start_of(page + 1))
            if page == 0:
                self.centre = (keys if rotary is None else rotary.at(keys, -positions)).mean(1, keepdim=True)
            assert self.centre is not None
            keys = keys - (self.centre if rotary is None else rotary.at(self.centre, positions))
        return in_huge_pages(self.format.encode(keys, values))

    def cut(self, length: int) -> None:
        """Drops the pages that reach beyond `length` tokens; whoever cuts sets a tail that reaches there."""
        del self.pages[max(0, length - SINKS) // self.format.tokens :]
        self._read = Pages()

    def adopt(self, index: int, page: Tensor) -> None:
        """Takes the same page from elsewhere in place of its own."""
        self.pages[index] = page
        self._read = Pages()

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1

    def attend(self, query: Tensor) -> Tensor:
        """The last Q positions over all before them: scaled [H, Q, D] → [H, Q, D]."""
        past = self.length - query.shape[1]
        groups: list[tuple[int, int]] = []  # of neighbouring positions that read the same pages: pages, queries
        for position in range(past, self.length):
            pages = self.coded_pages(position)
            if groups and groups[-1][0] == pages:
                groups[-1] = pages, groups[-1][1] + 1
            else:
                groups.append((pages, 1))
        outs: list[Tensor] = []
        for pages, count in groups:
            done = sum(out.shape[1] for out in outs)
            outs.append(self._attend_group(query[:, done : done + count], past + done, pages))
        return torch.cat(outs, 1)

    def _attend_group(self, query: Tensor, past: int, pages: int) -> Tensor:
        heads, count, size = query.shape
        packed = query.float().reshape(self.format.heads, -1, size)  # [KV, group · Q, D]
        assert self.span is not None
        start = self.start_of(pages) if pages else 0
        keys, values = self.span.rows(start, past + count)
        parts: list[Partial] = []
        if keys.shape[2]:
            mask = causal_mask(past - start, count, None, query.device).repeat(heads // self.format.heads, 1)
            parts.append(dense_attention(packed, keys[0], values[0], mask))
        if pages:
            assert self.sinks is not None
            parts.append(dense_attention(packed, self.sinks[0][0], self.sinks[1][0]))
            parts.append(decode_attention(packed, self._first(pages), self.format, SINKS, self.centre))
        return merged(parts).out.reshape(heads, count, size).to(query.dtype)

    def _first(self, count: int) -> Pages:
        """The first pages; the same object as for the last token if they are the same, as it knows where they lie."""
        if len(self._read) != count or not all(map(is_, self._read, self.pages)):
            self._read = Pages(self.pages[:count])
        return self._read


def paged_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor | PagedLayer,
    value: Tensor | PagedLayer,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention for transformers over a `PagedLayer`, or over plain tensors, [1, KV, S, D], in sliding layers.

    Pages are always causal; so are tensors without a mask, where the last query is the last key's.

    Raises:
        ConfigError: Pages are to be read as they cannot be: with capped scores, or with sinks beside the keys.
    """
    length, size = query.shape[2:]
    if isinstance(key, PagedLayer):
        if kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
            raise ConfigError("This model's attention cannot read a compressed cache.", hint="Use kv_bits=16.")
        out = key.attend(query[0] * (size**-0.5 if scaling is None else scaling))
        return out.transpose(0, 1)[None], None
    assert isinstance(value, Tensor)
    behind_window = sliding_window is not None and key.shape[2] > sliding_window  # of a prompt's last query alone
    if attention_mask is None and (length > 1 or behind_window):
        attention_mask = causal_mask(key.shape[2] - length, length, sliding_window, query.device)[None, None]
    return packed_sdpa(module, query, key, value, attention_mask, scaling)


def no_mask(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> None:
    """The mask that transformers makes for `paged_attention`: none.

    Raises:
        ConfigError: The prompt is padded, [1, S] with zeros; pages would be read with the padding.
    """
    if attention_mask is not None and not attention_mask.all():
        raise ConfigError("A compressed cache holds no padding.", hint="Give each prompt a cache of its own, unpadded.")


AttentionInterface.register(PAGED, paged_attention)
AttentionMaskInterface.register(PAGED, no_mask)
