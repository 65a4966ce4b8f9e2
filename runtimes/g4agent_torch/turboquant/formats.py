"""What a page holds for one full-attention layer, and how the model says so."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

from g4agent.errors import ConfigError
from g4agent_torch.memory import read_kv_bits
from g4agent_torch.turboquant import gpu, native_encoding
from g4agent_torch.turboquant.codec import KEYS_FIRST, Codec, Scale, codec, is_encodable
from g4agent_torch.turboquant.layout import PAGE_TOKENS, Order
from g4agent_torch.turboquant.rotary import Rotary, turned

LEAST_ENERGY: Final = 1e-3
"""Of a dimension, in means of all: weights near zero must not make factors huge."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class ValueOnly:
    """How keys follow from values where a layer has one projection for both: K = RoPE(k_norm.weight ⊙ V).

    True of the global layers of Gemma 4 12B, 26B-A4B and 31B (`attention_k_eq_v`), and of nano's.
    """

    key_norm: Tensor
    """`k_norm.weight`, [head_dim]."""
    frequencies: Tensor
    """Radians per position of each rotary pair, float32 [rotary_dim / 2]; pair i: dimensions i, head_dim / 2 + i."""
    rotary: Tensor
    """Indices of the dimensions that carry positions: first members of the pairs, then second, [rotary_dim]."""
    rest: Tensor
    """Indices of the others, ascending."""

    def keys(self, values: Tensor, positions: Tensor) -> Tensor:
        """Rebuilds the rotary part of keys: values [..., T, rotary_dim] at positions [T] → the same shape."""
        scaled = values * self.key_norm[self.rotary]
        angle = positions.to(torch.float32)[:, None] * self.frequencies
        return turned(scaled, angle)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class LayerFormat:
    """One layer's part of a page: for each KV head, the streams of `layout.py` one after the other."""

    heads: int
    """KV heads."""
    head_dim: int
    rate: str
    value_only: ValueOnly | None = None
    tokens: int = PAGE_TOKENS
    balance: Tensor | None = None
    """What keys are multiplied with before they are coded, and queries divided by, [head_dim]; see `_balance`."""
    fine_keys: bool = False
    """Whether at 4 bits keys take 5 and values 3. Kernels read 4 and 4 faster; at less than 4 keys always take more."""
    rotary: Rotary | None = None
    """Where set, keys are centred before positions turn them: what they share turns, too."""
    token_order: bool = False
    """Whether codes lie token by token, as PyTorch alone reads them fastest; else in the kernels' orders."""
    rates: tuple[str, str] = field(init=False)
    """Of both streams; together they are twice the rate."""
    streams: tuple[Codec, Codec] = field(init=False)
    """Codecs of (keys, values), or of a value's (position-free, rotary) dimensions."""

    def __post_init__(self) -> None:
        if self.value_only is None:
            sizes, scales, orders = [self.head_dim] * 2, (Scale.NORM, Scale.UNBIASED), (Order.KEY, Order.VALUE)
        else:
            sizes = [len(self.value_only.rest), len(self.value_only.rotary)]
            scales, orders = (Scale.UNBIASED,) * 2, (Order.KEY,) * 2
        if self.token_order:
            orders = (Order.TOKEN,) * 2
        even = self.value_only is not None or (self.rate == "4" and not self.fine_keys)
        object.__setattr__(self, "rates", (self.rate, self.rate) if even else KEYS_FIRST[self.rate])
        first, second = (codec(*parts) for parts in zip(sizes, self.rates, scales, orders, strict=True))
        object.__setattr__(self, "streams", (first, second))

    @property
    def head_bytes(self) -> int:
        """Bytes of one KV head in a page."""
        return sum(stream.stream_bytes(self.tokens) for stream in self.streams)

    @property
    def page_bytes(self) -> int:
        """Bytes of the layer in a page."""
        return self.heads * self.head_bytes

    def encode(self, keys: Tensor, values: Tensor) -> Tensor:
        """Keys and values [KV, P, D] → uint8 [page_bytes]; by a kernel where one has their order, to the same bytes."""
        if self.balance is not None:
            keys = keys * self.balance
        if not self.token_order and gpu.runs_on(values.device):
            from g4agent_torch.turboquant.gpu.encode import encode

            return encode(keys, values, self)
        first, second = keys, values
        if (shared := self.value_only) is not None:
            first, second = values[..., shared.rest], values[..., shared.rotary]
        return torch.cat(
            [native_encoding.encode(*pair) for pair in zip(self.streams, (first, second), strict=True)], -1
        ).flatten()

    def split(self, pages: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Pages, uint8 [page_bytes] each → their two streams, uint8 [pages, KV, stream_bytes]."""
        stacked = torch.stack(tuple(pages)).unflatten(-1, (self.heads, self.head_bytes))
        first, second = stacked.split([stream.stream_bytes(self.tokens) for stream in self.streams], -1)
        return first, second

    def decode(self, pages: Sequence[Tensor], first_position: int) -> tuple[Tensor, Tensor]:
        """Pages → keys and values, float32 [KV, pages · P, D] each. For tests: attention never decodes like this."""
        first, second = (
            stream.decode(part, self.tokens).transpose(0, 1).flatten(1, 2)
            for stream, part in zip(self.streams, self.split(pages), strict=True)
        )
        if (shared := self.value_only) is None:
            return first if self.balance is None else first / self.balance, second
        values = first.new_empty(self.heads, first.shape[1], self.head_dim)
        values[..., shared.rest], values[..., shared.rotary] = first, second
        keys = values * shared.key_norm
        positions = torch.arange(first_position, first_position + first.shape[1], device=first.device)
        keys[..., shared.rotary] = shared.keys(second, positions)
        return keys, values


def layer_formats(text_model: Any, kv_bits: str) -> dict[int, LayerFormat]:
    """The format of each full-attention layer that stores keys and values, by layer index.

    Args:
        text_model: The decoder of a Gemma 4, Gemma 3 or Llama-shaped model.
        kv_bits: One of `codec.RATES`, or with others for single layers; see `memory.read_kv_bits`.

    Raises:
        ConfigError: A head size has no codec, or `kv_bits` does not fit the layers.
    """
    config = text_model.config
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    formats: dict[int, LayerFormat] = {}
    rotary, rates = _rotary(text_model), read_kv_bits(kv_bits)
    if rates.rate == "16":
        raise ConfigError("Layers of 16 bits are not compressed.", hint="Use a DenseKVStore for them.")
    for index, (kind, layer) in enumerate(zip(kinds, text_model.layers, strict=True)):
        attention = layer.self_attn
        if kind != "full_attention" or getattr(attention, "is_kv_shared_layer", False):
            continue
        size = attention.head_dim
        if not is_encodable(size):
            raise ConfigError(
                f"Keys of {size} coordinates cannot be compressed.",
                hint="Use kv_bits=16. Head sizes of 2^k or 12 · 2^k, at least 32, can be.",
            )
        heads = attention.k_proj.out_features // size
        shared = _value_only(text_model, attention)
        balance = _balance(attention) if shared is None else None
        uneven = shared is None and balance is None  # keys whose large dimensions nothing is known of
        turning = rotary if uneven and rotary is not None and 2 * len(rotary.frequencies) == size else None
        rate = rates.of(index)
        formats[index] = LayerFormat(heads, size, rate, shared, balance=balance, fine_keys=uneven, rotary=turning)
    rates.check(formats)
    return formats


def _rotary(text_model: Any) -> Rotary | None:
    """Where one set of frequencies serves all layers."""
    frequencies = getattr(text_model.rotary_emb, "inv_freq", None)
    return None if frequencies is None else Rotary(frequencies.detach().cpu().double(), frequencies.device)


@torch.no_grad()
def _balance(attention: Any) -> Tensor | None:
    """Factors of keys that make the errors of scores small, where queries and keys are normalised; else None.

    Rotated codes err alike in all dimensions, which is best where queries weigh all dimensions alike. The norms'
    weights tell how large queries and keys are in each; a score's expected error is least with factors
    (query / key)^(1/2).
    Both dimensions of a rotary pair have the same: positions turn them into each other.
    """
    sizes = []
    for norm in (getattr(attention, "q_norm", None), getattr(attention, "k_norm", None)):
        if norm is None:
            return None
        weights = deepcopy(norm).to("cpu", torch.float32)(torch.ones(attention.head_dim))
        first, second = weights.square().chunk(2)
        energy = ((first + second) / 2).repeat(2)
        sizes.append((energy + LEAST_ENERGY * energy.mean()).sqrt())
    factors: Tensor = (sizes[0] / sizes[1]).sqrt()
    return factors.to(attention.k_norm.weight.device)


def _value_only(text_model: Any, attention: Any) -> ValueOnly | None:
    """Set where keys follow from values and both blocks of dimensions have a codec."""
    if not getattr(attention, "use_alternative_attention", False):
        return None
    if text_model.rotary_emb.full_attention_attention_scaling != 1:  # of YaRN: keys would not only be turned
        return None
    frequencies = text_model.rotary_emb.full_attention_inv_freq.float()
    half = attention.head_dim // 2
    turning = torch.nonzero(frequencies)[:, 0]
    rotary = torch.cat([turning, turning + half])
    rest = torch.tensor([i for i in range(2 * half) if i % half not in set(turning.tolist())], device=rotary.device)
    if not (is_encodable(len(rotary)) and is_encodable(len(rest))):
        return None
    return ValueOnly(attention.k_norm.weight.detach().float(), frequencies[turning], rotary, rest)
