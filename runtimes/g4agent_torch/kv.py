"""The KV cache behind an engine: one seam, and the full-precision cache.

An engine knows a cache only as `KVCache`; what a layer stores, and in which form, is the business of the `KVStore` that
made it. Layers are read by the attention function that the store names, so a store may return something else than
plain tensors to its own kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DummyLayer, get_layer_types_and_kwargs
from transformers.configuration_utils import PreTrainedConfig

from g4agent_torch.attention import PACKED_SDPA

BYTE_WINDOWS: Final = "windows in 8 bits"
"""What a store with `ByteWindowLayer` adds to what it is `described` by."""
MAX_MARKS: Final = 4
"""Marks held per cache: each can keep up to two windows, 1.7 GB of the 31B, from being freed."""


class KVCache(Protocol):
    """Keys and values of one sequence."""

    @property
    def layers(self) -> Cache:
        """What transformers' forward takes as its cache."""
        ...

    @property
    def length(self) -> int:
        """Tokens whose keys and values are held."""
        ...

    def mark(self, length: int, kept: int = MAX_MARKS) -> None:
        """Keeps what is needed to come back to `length`, which lies within the last forward pass or at its end, and of
        all marks at most `kept`."""
        ...

    def truncate(self, length: int) -> int:
        """Cuts back to the longest prefix of at most `length` tokens that can be restored, and returns its length."""
        ...


class KVStore(Protocol):
    """Makes caches for one model."""

    @property
    def attention(self) -> str:
        """Name in transformers' `AttentionInterface` of the function that reads these caches."""
        ...

    @property
    def described(self) -> Any:
        """All that decides how keys and values are stored, as JSON has it: part of the address of every page."""
        ...

    def new(self) -> DenseKVCache: ...


class DenseKVStore:
    """Caches in the model's own precision.

    Args:
        config: The text configuration of a Gemma 4.
        windows: Makes a sliding layer of a window's size; None: one in the model's precision.
    """

    attention = PACKED_SDPA

    def __init__(self, config: PreTrainedConfig, windows: Callable[..., WindowLayer] | None = None) -> None:
        self._types, self._arguments = get_layer_types_and_kwargs(config)
        self._windows = windows

    @property
    def described(self) -> Any:
        return "full precision" if self._windows is None else ["full precision", BYTE_WINDOWS]

    def new(self) -> DenseKVCache:
        layers: list[Any] = []
        for kind, arguments in zip(self._types, self._arguments, strict=True):
            if kind == "full_attention":
                layers.append(GrowingLayer())
            elif kind == "sliding_attention":
                layers.append((self._windows or WindowLayer)(**arguments))
            else:  # shares the keys and values of a layer below
                assert kind == "dummy", kind
                layers.append(DummyLayer())
        return DenseKVCache(layers)


class DenseKVCache:
    """Full layers keep every position; sliding layers keep the window, and older windows for as long as a mark does."""

    def __init__(self, layers: list[Any]) -> None:
        self._cache = Cache(layers=layers)
        self._windows = [layer for layer in layers if hasattr(layer, "span")]
        self._full = [layer for layer in layers if hasattr(layer, "cut")]
        self._marks: dict[int, list[Span]] = {}

    @property
    def layers(self) -> Cache:
        return self._cache

    @property
    def length(self) -> int:
        length: int = self._full[0].length
        return length

    @property
    def marked_bytes(self) -> int:
        """What marks keep from being freed: window buffers that are no longer the present ones."""
        present = {id(layer.span) for layer in self._windows}
        old = {id(span): span for spans in self._marks.values() for span in spans if id(span) not in present}
        return sum(span.keys.nbytes + span.values.nbytes for span in old.values())

    def mark(self, length: int, kept: int = MAX_MARKS) -> None:
        """Holds on to the present window buffers: no copy, but memory of up to two windows per mark.

        Of more than `kept`, the mark with the fewest tokens between it and the one before goes, never the newest.
        """
        spans = [layer.span for layer in self._windows if layer.span is not None]
        if not spans:  # nothing is held yet, and coming back to nothing needs nothing
            return
        assert spans[0].restorable(length) == length, (length, self.length)
        self._marks[length] = spans
        while len(self._marks) > kept:
            lengths = sorted(self._marks)
            cheapest = min(range(len(lengths) - 1), key=lambda i: lengths[i] - (lengths[i - 1] if i else 0))
            del self._marks[lengths[cheapest]]

    def forget_marks(self) -> None:
        """Lets go of what only marks hold; coming back to them takes a cut, or whoever has saved them."""
        self._marks.clear()

    def truncate(self, length: int) -> int:
        if length >= self.length:
            return self.length
        current = [layer.span for layer in self._windows if layer.span is not None]
        best = max([current, *self._marks.values()], key=lambda spans: _restorable(spans, length))
        restored = _restorable(best, length)
        for layer, span in zip(self._windows, best, strict=True):
            layer.span = span if restored else None
        for full in self._full:
            full.cut(restored)
        self._marks = {at: spans for at, spans in self._marks.items() if at <= restored}
        # Spans overlap: what was cut must be gone from each of them, or a later cut could bring it back.
        for span in [*best, *(span for spans in self._marks.values() for span in spans)]:
            span.end = min(span.end, restored)
        return restored


class GrowingLayer(CacheLayerMixin):
    """A full-attention layer: one buffer each for keys and values, grown by half when full.

    Appending costs the new tokens only, whatever the length; `torch.cat` would copy the whole past for each token.
    """

    is_sliding = False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys = key_states.new_empty((*key_states.shape[:2], 0, key_states.shape[3]))
        self.values = value_states.new_empty((*value_states.shape[:2], 0, value_states.shape[3]))
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Adds [1, KV, Q, D] and returns all, [1, KV, length, D]."""
        if self.keys is None or self.values is None:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        end = self.length + key_states.shape[2]
        capacity = self.keys.shape[2]
        if end > capacity:
            capacity = max(end, capacity + capacity // 2, 256)
            self.keys = _moved(self.keys[:, :, : self.length], capacity)
            self.values = _moved(self.values[:, :, : self.length], capacity)
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def cut(self, length: int) -> None:
        self.length = length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1


class Span:
    """Consecutive positions of a sliding layer: row 0 of [1, KV, capacity, D] is position `base`, `end` is not written.

    Rows below `end` never change while a mark holds the span: writing goes on behind them, and a cut drops the marks
    beyond it.
    """

    __slots__ = ("base", "end", "floor", "keys", "values", "window")

    def __init__(self, keys: Tensor, values: Tensor, base: int, end: int, window: int) -> None:
        self.keys, self.values, self.base, self.end, self.window = keys, values, base, end, window
        self.floor = base + window - 1 if base else 0  # the shortest length whose window is wholly here

    @classmethod
    def empty(cls, key_states: Tensor, value_states: Tensor, window: int) -> Span:
        """No positions yet, for states shaped like these."""
        return cls(key_states[:, :, :0], value_states[:, :, :0], 0, 0, window)

    def rows(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Keys and values of positions `start` to `end`: views [1, KV, end - start, D]."""
        kept = slice(start - self.base, end - self.base)
        return self.keys[:, :, kept], self.values[:, :, kept]

    def restorable(self, length: int) -> int:
        """The longest prefix of at most `length` tokens that this span can continue; 0 if only the empty one."""
        at = min(length, self.end)
        return at if at >= self.floor else 0


class WindowLayer(CacheLayerMixin):
    """A sliding layer. Tokens are written behind each other; a full buffer is left and its last window copied on.

    `sliding_window` positions are kept although the next token sees one less, so that at least the last token can
    always be taken back.
    """

    is_sliding = True

    def __init__(self, sliding_window: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.window = sliding_window
        self.span: Span | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.span = Span.empty(key_states, value_states, self.window)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Adds [1, KV, Q, D] and returns the last `window - 1` positions before them, and them."""
        if self.span is None:
            self.lazy_initialization(key_states, value_states)
        assert self.span is not None
        past = self.span.end
        self.span = extended(self.span, key_states, value_states, past - self.window)
        return self.span.rows(max(self.span.base, past - self.window + 1), self.span.end)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        seen = min(self.get_seq_length(), self.window - 1)
        return seen + query_length, self.get_seq_length() - seen

    def get_seq_length(self) -> int:
        return 0 if self.span is None else self.span.end

    def get_max_length(self) -> int:
        return self.window


def _restorable(spans: list[Span], length: int) -> int:
    """The longest prefix of at most `length` tokens that all spans can continue; 0 if only the empty one."""
    return min((span.restorable(length) for span in spans), default=length)


def extended(span: Span, key_states: Tensor, value_states: Tensor, kept: int) -> Span:
    """The span with [1, KV, Q, D] behind its end: itself, or if it is full a new one from position `kept` on."""
    past, added = span.end, key_states.shape[2]
    if past - span.base + added > span.keys.shape[2]:
        base = max(span.base, kept)
        capacity = max(past - base, span.window) + max(added, span.window)
        keys, values = (_moved(rows, capacity) for rows in span.rows(base, past))
        span = Span(keys, values, base, past, span.window)
    start, end = past - span.base, past - span.base + added
    span.keys[:, :, start:end] = key_states
    span.values[:, :, start:end] = value_states
    span.end = past + added
    return span


def _moved(rows: Tensor, capacity: int) -> Tensor:
    """A buffer [1, KV, capacity, D] that starts with `rows` [1, KV, n, D]."""
    buffer = torch.empty((*rows.shape[:2], capacity, rows.shape[3]), dtype=rows.dtype, device=rows.device)
    buffer[:, :, : rows.shape[2]] = rows
    return buffer
