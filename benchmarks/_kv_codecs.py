"""Other ways to compress keys and values, in the place of ours: the same start and tail in full precision.

What they decode to is kept as it is, so that any codec can be measured; their bits are counted, not stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import get_layer_types_and_kwargs

from g4agent_torch.attention import causal_mask
from g4agent_torch.kv import DenseKVCache, WindowLayer
from g4agent_torch.turboquant.attention import dense_attention
from g4agent_torch.turboquant.cache import PagedLayer
from g4agent_torch.turboquant.codec import Scale, codec
from g4agent_torch.turboquant.formats import layer_formats
from g4agent_torch.turboquant.layout import PAGE_TOKENS, Order
from g4agent_torch.turboquant.prod import ProdCodec

RoundTrip = Callable[[Tensor], Tensor]
"""Vectors [KV, P, D] → what is decoded from their codes."""
GROUP = 64
"""Coordinates that share a scale and an offset in transformers' quantised caches."""


@dataclass(frozen=True, slots=True)
class RoundTrips:
    """Stands for a `LayerFormat`: a "page" is decoded keys and values, [2, KV, P, D]."""

    heads: int
    keys: RoundTrip
    values: RoundTrip
    tokens: int = PAGE_TOKENS

    def encode(self, keys: Tensor, values: Tensor) -> Tensor:
        return torch.stack([self.keys(keys.float()), self.values(values.float())])


class DecodedLayer(PagedLayer):
    """A `PagedLayer` whose pages are decoded already, and whose codec gets keys as they are."""

    def _encode(self, page: int, keys: Tensor, values: Tensor) -> Tensor:
        return self.format.encode(keys, values)

    def _attend_group(self, query: Tensor, past: int, pages: int) -> Tensor:
        heads, count, size = query.shape
        assert self.span is not None
        keys, values = (rows[0] for rows in self.span.rows(self.start_of(pages) if pages else 0, past + count))
        if pages:
            assert self.sinks is not None
            decoded = self.pages[:pages]
            keys = torch.cat([self.sinks[0][0], *(page[0] for page in decoded), keys], 1)
            values = torch.cat([self.sinks[1][0], *(page[1] for page in decoded), values], 1)
        mask = causal_mask(past, count, None, query.device).repeat(heads // self.format.heads, 1)
        packed = query.float().reshape(self.format.heads, -1, size)
        return dense_attention(packed, keys, values, mask).out.reshape(heads, count, size).to(query.dtype)


class DecodedStore:
    """Caches with one codec in all full-attention layers.

    Args:
        text_model: A model that `TurboQuantKVStore` takes.
        make: From a head size to round trips of keys and values; called for each layer of each cache.
    """

    def __init__(self, text_model: Any, make: Callable[[int], tuple[RoundTrip, RoundTrip]]) -> None:
        self._types, self._arguments = get_layer_types_and_kwargs(text_model.config)
        self._attention, self._make = text_model.layers[0].self_attn, make

    def new(self) -> DenseKVCache:
        size = self._attention.head_dim
        heads = self._attention.k_proj.out_features // size
        layers: list[Any] = []
        for kind, arguments in zip(self._types, self._arguments, strict=True):
            if kind == "full_attention":
                layers.append(DecodedLayer(RoundTrips(heads, *self._make(size))))  # type: ignore[arg-type]
            else:
                layers.append(WindowLayer(**arguments))
        return DenseKVCache(layers)


class OneLayerStore:
    """Caches with our codec in one full-attention layer, the others in full precision: what that layer costs."""

    def __init__(self, text_model: Any, rate: str, layer: int) -> None:
        self._exact = DecodedStore(text_model, lambda size: (_as_it_is, _as_it_is))
        self._format, self._layer = layer_formats(text_model, rate)[layer], layer

    def new(self) -> DenseKVCache:
        layers = list(self._exact.new().layers.layers)
        layers[self._layer] = PagedLayer(self._format)
        return DenseKVCache(layers)


def _as_it_is(x: Tensor) -> Tensor:
    return x


def prod(size: int) -> tuple[RoundTrip, RoundTrip]:
    """TurboQuant's two-stage form at 4 bits and two norms."""
    made = ProdCodec(size, 4)

    def round_trip(x: Tensor) -> Tensor:
        return made.decode(made.encode(x.flatten(0, 1))).view_as(x)

    return round_trip, round_trip


def min_max(bits: int) -> Callable[[int], tuple[RoundTrip, RoundTrip]]:
    """Uniform levels between a vector's least and greatest coordinate, without a rotation."""

    def round_trip(x: Tensor) -> Tensor:
        least, most = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
        step = ((most - least) / (2**bits - 1)).clamp(min=1e-12)
        return ((x - least) / step).round() * step + least

    return lambda size: (round_trip, round_trip)


def as_they_are(rate: str) -> Callable[[int], tuple[RoundTrip, RoundTrip]]:
    """Our codec at one rate on keys as they are, neither centred nor balanced."""

    def make(size: int) -> tuple[RoundTrip, RoundTrip]:
        keys, values = (codec(size, rate, scale, Order.KEY) for scale in (Scale.NORM, Scale.UNBIASED))
        return lambda x: keys.decode(keys.encode(x), x.shape[1]), lambda x: values.decode(values.encode(x), x.shape[1])

    return make


def transformers_layer(backend: str, bits: int) -> Callable[[int], tuple[RoundTrip, RoundTrip]]:
    """The quantiser of transformers' `QuantizedCache` with its default groups."""
    from transformers.cache_utils import HQQQuantizedLayer, QuantoQuantizedLayer

    kind, axis = {"quanto": (QuantoQuantizedLayer, 0), "hqq": (HQQQuantizedLayer, 1)}[backend]
    layer = kind(nbits=bits, axis_key=axis, axis_value=axis, q_group_size=GROUP)
    layer.keys = torch.empty(0)  # it asks these for their device

    def round_trip(x: Tensor) -> Tensor:
        decoded: Tensor = layer._dequantize(layer._quantize(x[None].contiguous(), axis))
        return decoded.reshape(x.shape).float()

    return lambda size: (round_trip, round_trip)
