"""Makes compressed caches for one model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import PreTrainedModel
from transformers.cache_utils import DummyLayer, get_layer_types_and_kwargs

from g4agent_torch.kv import BYTE_WINDOWS, DenseKVCache, WindowLayer
from g4agent_torch.turboquant import codebooks
from g4agent_torch.turboquant.attention import as_read_here
from g4agent_torch.turboquant.cache import PAGED, SINKS, TAIL_PAGES, PagedLayer
from g4agent_torch.turboquant.formats import layer_formats
from g4agent_torch.turboquant.layout import FORMAT_VERSION, PAGE_TOKENS
from g4agent_torch.turboquant.rotation import SEED


class TurboQuantKVStore:
    """Full-attention layers keep pages of codes; sliding layers keep their window in the model's precision.

    Args:
        text_model: The decoder of a Gemma 4, Gemma 3 or Llama-shaped model.
        kv_bits: One of `codec.RATES`, or with others for single layers; see `memory.read_kv_bits`.
        windows: Makes a sliding layer of a window's size; None: one in the model's precision.

    Raises:
        ConfigError: A head size has no codec.
    """

    attention = PAGED

    def __init__(
        self, text_model: PreTrainedModel, kv_bits: str, windows: Callable[..., WindowLayer] | None = None
    ) -> None:
        self._types, self._arguments = get_layer_types_and_kwargs(text_model.config)
        formats = layer_formats(text_model, kv_bits).items()
        self.formats = {index: as_read_here(layer, text_model.device) for index, layer in formats}
        self._windows = windows

    @property
    def described(self) -> Any:
        layers = [
            [index, layer.heads, layer.head_dim, layer.value_only is not None, layer.rates, layer.token_order]
            for index, layer in self.formats.items()
        ]
        versions = [FORMAT_VERSION, codebooks.fingerprint(), SEED.decode(), SINKS, TAIL_PAGES, PAGE_TOKENS]
        return [versions, layers, *([] if self._windows is None else [BYTE_WINDOWS])]

    def new(self) -> DenseKVCache:
        layers: list[Any] = []
        for index, (kind, arguments) in enumerate(zip(self._types, self._arguments, strict=True)):
            if index in self.formats:
                layers.append(PagedLayer(self.formats[index]))
            else:
                window = self._windows or WindowLayer
                layers.append(window(**arguments) if kind == "sliding_attention" else DummyLayer())
        return DenseKVCache(layers)
