"""What a Gemma 4 needs in memory, to the byte, from its configuration alone. No torch in here.

The weights are those of the language model, as `Decoder` keeps them. A cache is counted as `kv.py` and `turboquant`
allocate it after a prompt of so many tokens: full buffers and not only what is written in them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from g4agent.errors import ConfigError, ModelLoadError

RATES: Final = ("16", "4", "3.5", "2.5")
"""As `kv_bits` takes them; 16 is bfloat16."""
SLIDING_BITS: Final = ("16", "8")
"""As `kv_sliding_bits` takes them."""
HEAD_BITS: Final = ("16", "4")
"""As `head_bits` takes them."""
HEAD_GROUP: Final = 32
"""Weights of a row that share two scales in a head of 4 bits."""
HEAD_ROWS: Final = 16
"""What the number of its rows is rounded up to a multiple of."""
SCALE_BYTES: Final = 2
"""Of a vector in 8 bits."""
PAGE_TOKENS: Final = 128
SINKS: Final = 16
"""Of compressed layers: first tokens in full precision."""
TAIL_TOKENS: Final = 2 * PAGE_TOKENS
"""Of compressed layers: at most so many last tokens, too."""
NUMBER_BYTES: Final = 2
"""Of bfloat16."""


@dataclass(frozen=True, slots=True)
class KVBits:
    """What `kv_bits` says: a rate for all full layers, and others for single ones."""

    rate: str
    """One of `RATES`."""
    own: tuple[tuple[int, int, str], ...] = ()
    """First layer, last layer, and the rate of the full ones among them."""

    def of(self, layer: int) -> str:
        """The rate of a full layer, by its index in the model."""
        return next((rate for first, last, rate in self.own if first <= layer <= last), self.rate)

    def check(self, layers: Collection[int]) -> None:
        """Whether all that has a rate of its own is there.

        Args:
            layers: The full layers that keep keys and values.

        Raises:
            ConfigError: There is no such layer, or it has two rates.
        """
        for index, (first, last, _) in enumerate(self.own):
            if not any(first <= layer <= last for layer in layers):
                none = f"Layer {first} keeps no" if first == last else f"No layer from {first} to {last} keeps"
                known = ", ".join(map(str, sorted(layers)))
                raise ConfigError(f"{none} keys and values that could be compressed.", hint=f"Those that do: {known}.")
            if any(first <= end and start <= last for start, end, _ in self.own[:index]):
                raise ConfigError(f"Of layers {first} to {last} one has bits twice.", hint="Name each layer once.")


def read_kv_bits(text: str) -> KVBits:
    """`4`, or with rates of their own for single layers, or for the full ones among neighbours: `3.5,11=4,17-29=2.5`.

    Raises:
        ConfigError: It is nothing like that.
    """
    if not isinstance(text, str):
        raise ConfigError(f"kv_bits={text!r} is no text.", hint='Write kv_bits="4", or as in kv_bits="3.5,11=4".')
    rate, *parts = (part.strip() for part in text.split(","))
    own: list[tuple[int, int, str]] = []
    for part in parts:
        layers, equals, bits = (word.strip() for word in part.partition("="))
        first, dash, last = (word.strip() for word in layers.partition("-"))
        if not (equals and first.isdecimal() and (last.isdecimal() if dash else True)):
            raise ConfigError(f"{part!r} says no layer's bits.", hint="Write them as 11=4, or 17-29=2.5.")
        if int(last or first) < int(first):
            raise ConfigError(f"{layers!r} ends before it begins.", hint=f"Write {last}-{first}={bits}.")
        own.append((int(first), int(last or first), bits))
    for bits in (rate, *(bits for _, _, bits in own)):
        if bits not in RATES:
            raise ConfigError(f"{bits!r} bits are no rate of the KV cache.", hint=f"Use {', '.join(RATES)}.")
    if own and "16" in (rate, *(bits for _, _, bits in own)):
        raise ConfigError("All full layers are compressed, or none is.", hint="Use 16 alone, or 4 for some layers.")
    return KVBits(rate, tuple(own))


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer's attention."""

    sliding: bool
    shared: bool
    """Reads the keys and values of a layer below, and has none of its own."""
    heads: int
    """KV heads."""
    head_dim: int


@dataclass(frozen=True, slots=True)
class Shape:
    """The parts of a text configuration that decide what is allocated."""

    config: Mapping[str, Any]
    layers: tuple[Layer, ...]

    @property
    def context_length(self) -> int:
        """Tokens that the model was built for."""
        length: int = self.config["max_position_embeddings"]
        return length

    @property
    def embedding_parameters(self) -> int:
        """Of the per-layer embeddings, whose table no product reads as a whole."""
        width = self.config.get("hidden_size_per_layer_input") or 0
        rows: int = self.config.get("vocab_size_per_layer_input") or self.config["vocab_size"]
        return rows * width * len(self.layers)

    @property
    def parameters(self) -> int:
        """Of the language model, embeddings included; input and output share theirs."""
        c = self.config
        hidden: int = c["hidden_size"]
        width = c.get("hidden_size_per_layer_input") or 0
        total: int = c["vocab_size"] * hidden + hidden + self.embedding_parameters
        if width:
            total += hidden * len(self.layers) * width + width
        for layer in self.layers:
            queries, keys = c["num_attention_heads"] * layer.head_dim, layer.heads * layer.head_dim
            total += 2 * hidden * queries + layer.head_dim + 4 * hidden
            if not layer.shared:
                total += hidden * keys * (1 if self.value_only(layer) else 2) + layer.head_dim
            total += 3 * hidden * c["intermediate_size"] * (2 if layer.shared and c.get("use_double_wide_mlp") else 1)
            if width:
                total += 2 * hidden * width + hidden
            if c.get("enable_moe_block"):
                experts, inner = c["num_experts"], c["moe_intermediate_size"]
                total += 3 * experts * inner * hidden + experts * hidden + hidden + experts + 3 * hidden
        return total

    def check_kv_bits(self, kv_bits: str) -> None:
        """Whether `kv_bits` fits the model's layers.

        Raises:
            ConfigError: It does not, or is none.
        """
        read_kv_bits(kv_bits).check(self._growing)

    def value_only(self, layer: Layer) -> bool:
        """Whether keys and values come from one projection."""
        return bool(self.config.get("attention_k_eq_v")) and not layer.sliding

    def weight_bytes(self, bits: int) -> int:
        """Of all parameters at 16 (bfloat16) or 4 bits, without scales."""
        return self.parameters * bits // 8

    def head_bytes(self, bits: str, number_bytes: int = NUMBER_BYTES) -> int:
        """What an output head adds to the weights, which the embedding needs whole; scales have `number_bytes` each.

        Args:
            bits: One of `HEAD_BITS`.
            number_bytes: Of an uncompressed number.
        """
        if bits == "16":
            return 0
        rows: int = -(-self.config["vocab_size"] // HEAD_ROWS) * HEAD_ROWS
        hidden: int = self.config["hidden_size"]
        return rows * (hidden // 2 + hidden // HEAD_GROUP * 2 * number_bytes)

    def kv_bytes(self, tokens: int, kv_bits: str, chunk: int, sliding_bits: str = "16") -> int | None:
        """The whole cache after a prompt, sliding windows included.

        Args:
            tokens: Of the prompt.
            kv_bits: See `read_kv_bits`.
            chunk: Tokens per forward pass: `prefill_chunk`.
            sliding_bits: One of `SLIDING_BITS`.

        Returns:
            None where the model's head sizes cannot be compressed.
        """
        total, rates = 0, read_kv_bits(kv_bits)
        for index, layer in enumerate(self.layers):
            if layer.shared:
                continue
            vector = 2 * layer.heads * layer.head_dim * NUMBER_BYTES  # a key and a value
            if layer.sliding:
                total += _row(layer, sliding_bits, NUMBER_BYTES) * _span(tokens, chunk, self.config["sliding_window"])
            elif rates.of(index) == "16":
                total += vector * _grown(tokens, chunk)
            else:
                page = self._page_bytes(layer, rates.of(index))
                if page is None:
                    return None
                pages = _coded_pages(tokens - 1)
                start = vector * SINKS + self._centre_bytes(layer) if pages else 0
                total += pages * page + start + vector * _tail(tokens, chunk)
        return total

    def token_bytes(self, kv_bits: str, number_bytes: int = NUMBER_BYTES) -> float:
        """What a further token takes once the windows are full, buffers' slack left out; uncompressed numbers have
        `number_bytes` each."""
        rates, growing = read_kv_bits(kv_bits), self._growing
        if rates.rate == "16":
            return float(sum(2 * layer.heads * layer.head_dim * number_bytes for layer in growing.values()))
        return sum((self._page_bytes(layer, rates.of(index)) or 0) / PAGE_TOKENS for index, layer in growing.items())

    def fitting_tokens(self, limit: int, kv_bits: str, number_bytes: int, sliding_bits: str = "16") -> int:
        """The longest session whose keys and values fit into `limit` bytes, buffers' slack left out; 0 or less if not
        even its windows do. Uncompressed numbers have `number_bytes` each."""
        fixed, compressed = 0, read_kv_bits(kv_bits).rate != "16"
        for layer in self.layers:
            if layer.shared:
                continue
            vector = 2 * layer.heads * layer.head_dim * number_bytes
            if layer.sliding:
                fixed += _row(layer, sliding_bits, number_bytes) * self.config["sliding_window"]
            elif compressed:
                fixed += vector * (SINKS + TAIL_TOKENS) + self._centre_bytes(layer)
        return int((limit - fixed) / self.token_bytes(kv_bits, number_bytes))

    @property
    def _growing(self) -> dict[int, Layer]:
        """The full layers that keep keys and values, by their index."""
        return {index: layer for index, layer in enumerate(self.layers) if not layer.sliding and not layer.shared}

    def _page_bytes(self, layer: Layer, rate: str) -> int | None:
        """Of one layer's part of a page; see `turboquant/layout.py`."""
        if not _is_encodable(layer.head_dim):
            return None
        vector = int(layer.head_dim * float(rate)) // 8
        return layer.heads * PAGE_TOKENS * vector * (1 if self._coded_once(layer) else 2)

    def _centre_bytes(self, layer: Layer) -> int:
        """Of what keys are coded without, in float32."""
        return 0 if self._coded_once(layer) else layer.heads * layer.head_dim * 4

    def _coded_once(self, layer: Layer) -> bool:
        """Whether pages hold values only."""
        rotary = int(layer.head_dim * self._rotary_fraction())
        return self.value_only(layer) and _is_encodable(rotary) and _is_encodable(layer.head_dim - rotary)

    def _rotary_fraction(self) -> float:
        parameters = (self.config.get("rope_parameters") or {}).get("full_attention") or {}
        fraction: float = parameters.get("partial_rotary_factor", 0.25)
        return fraction


def shape_of(config: Mapping[str, Any]) -> Shape:
    """The shape of a parsed `config.json`, text-only or multimodal. Raises ModelLoadError where it is no Gemma 4's."""
    try:
        text = config.get("text_config") or config
        kinds, shared = text["layer_types"], text.get("num_kv_shared_layers") or 0
        own = {int(index): values for index, values in (text.get("per_layer_config") or {}).items()}
        layers = []
        for index, kind in enumerate(kinds):
            sliding = kind == "sliding_attention"
            heads, size = text["num_key_value_heads"], text["head_dim"]
            if not sliding:
                size = text.get("global_head_dim") or size
                heads = (text.get("num_global_key_value_heads") if text.get("attention_k_eq_v") else None) or heads
            mine = own.get(index) or {}
            heads, size = mine.get("num_key_value_heads", heads), mine.get("head_dim", size)
            layers.append(Layer(sliding, index >= len(kinds) - shared, heads, size))
        shape = Shape(text, tuple(layers))
        if min(shape.parameters, shape.context_length, text["sliding_window"]) < 1:
            raise ValueError("a size is not positive")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelLoadError(
            f"The configuration is not that of a Gemma 4 ({error!r}).", hint="Give the folder of a checkpoint."
        ) from error
    return shape


def _row(layer: Layer, bits: str, number_bytes: int) -> int:
    """Of a token in a sliding layer: a key and a value."""
    vector = layer.head_dim * number_bytes if bits == "16" else layer.head_dim + SCALE_BYTES
    return 2 * layer.heads * vector


def _coded_pages(position: int) -> int:
    """See `PagedLayer.coded_pages`."""
    return max(0, (position + 1 - SINKS) // PAGE_TOKENS - 1)


def _grown(tokens: int, chunk: int) -> int:
    """Tokens in the buffer of a `GrowingLayer`."""
    capacity = 0
    for start in range(0, tokens, chunk):
        end = min(tokens, start + chunk)
        if end > capacity:
            capacity = max(end, capacity + capacity // 2, 256)
    return capacity


def _span(tokens: int, chunk: int, window: int) -> int:
    """Tokens in the buffer of a `WindowLayer`."""
    base = capacity = 0
    for past in range(0, tokens, chunk):
        base, capacity = _extended(base, capacity, past, min(chunk, tokens - past), window, past - window)
    return capacity


def _tail(tokens: int, chunk: int) -> int:
    """Tokens in the full-precision buffer of a `PagedLayer`."""
    base = capacity = 0
    for past in range(0, tokens, chunk):
        coded = _coded_pages(past)
        kept = SINKS + coded * PAGE_TOKENS if coded else 0
        base, capacity = _extended(base, capacity, past, min(chunk, tokens - past), PAGE_TOKENS, kept)
    return capacity


def _extended(base: int, capacity: int, past: int, added: int, window: int, kept: int) -> tuple[int, int]:
    """Base and capacity of a span after `kv.extended`."""
    if past - base + added <= capacity:
        return base, capacity
    base = max(base, kept)
    return base, max(past - base, window) + max(added, window)


def _is_encodable(size: int) -> bool:
    """See `turboquant.codec.is_encodable`."""
    power = size // 12 if size % 12 == 0 else size
    return size > 0 and size % 32 == 0 and power & (power - 1) == 0


def _pattern(local: int, periods: int) -> list[str]:
    return (["sliding_attention"] * local + ["full_attention"]) * periods


_SMALL: Final = {"sliding_window": 512, "max_position_embeddings": 131_072, "hidden_size_per_layer_input": 256}
_LARGE: Final = {"sliding_window": 1024, "max_position_embeddings": 262_144, "attention_k_eq_v": True}
_COMMON: Final = {"vocab_size": 262_144, "head_dim": 256, "global_head_dim": 512}


def _official(hidden: int, inner: int, queries: int, heads: int, local: int, periods: int, **more: Any) -> Shape:
    sizes = {"hidden_size": hidden, "intermediate_size": inner, "num_attention_heads": queries}
    return shape_of({**_COMMON, **sizes, "num_key_value_heads": heads, "layer_types": _pattern(local, periods), **more})


OFFICIAL: Final = {
    "google/gemma-4-E2B-it": _official(
        1536, 6144, 8, 1, 4, 7, **_SMALL, num_kv_shared_layers=20, use_double_wide_mlp=True
    ),
    "google/gemma-4-E4B-it": _official(2560, 10_240, 8, 2, 5, 7, **_SMALL, num_kv_shared_layers=18),
    "google/gemma-4-12B-it": _official(3840, 15_360, 16, 8, 5, 8, **_LARGE, num_global_key_value_heads=1),
    "google/gemma-4-26B-A4B-it": _official(
        2816,
        2112,
        16,
        8,
        5,
        5,
        **_LARGE,
        num_global_key_value_heads=2,
        enable_moe_block=True,
        num_experts=128,
        moe_intermediate_size=704,
    ),
    "google/gemma-4-31B-it": _official(5376, 21_504, 32, 16, 5, 10, **_LARGE, num_global_key_value_heads=4),
}
"""Configurations of the official models, as far as they matter here (google-deepmind/gemma `_gemma4.py`)."""
