"""The models this runtime is made for, and what each needs. No torch in here: `g4agent models` prints it at once.

Parameters, weights and cache sizes were computed from the official configurations (text part, tied embeddings); the
cache counts transformers' full-precision layout: keys and values of each caching layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A checkpoint that `load` takes by `name`."""

    name: str
    """`nano` or a Hugging Face id."""
    parameters: int
    """Of the language model, without vision and audio towers."""
    context_length: int
    """Tokens it was built for."""
    kv_bytes_per_token: int
    """Growth of a bfloat16 cache per token: keys and values of the full-attention layers that have their own."""
    window_bytes: int
    """Fixed part of a bfloat16 cache: the sliding windows, once full."""
    note: str

    def weight_bytes(self, bits: int) -> int:
        """Memory of the weights at 16 (bfloat16), 8 or 4 bits per parameter, without scales."""
        return self.parameters * bits // 8

    def kv_bytes(self, tokens: int) -> int:
        """Memory of a bfloat16 cache that holds `tokens`."""
        return self.window_bytes + self.kv_bytes_per_token * tokens


MODELS: Final = (
    KnownModel("nano", 2_494_768, 131_072, 512, 65_536, "in the package: for demonstrations and tests only"),
    KnownModel("google/gemma-4-E2B-it", 4_630_000_000, 131_072, 6_144, 6 * MIB, "the smallest for real work"),
    KnownModel("google/gemma-4-E4B-it", 7_460_000_000, 131_072, 16_384, 20 * MIB, "a good default with 16 GB"),
    KnownModel("google/gemma-4-12B-it", 11_910_000_000, 262_144, 16_384, 320 * MIB, "dense"),
    KnownModel("google/gemma-4-26B-A4B-it", 25_230_000_000, 262_144, 20_480, 200 * MIB, "experts: 4 B active a token"),
    KnownModel("google/gemma-4-31B-it", 30_700_000_000, 262_144, 81_920, 799 * MIB, "dense, the strongest"),
)
"""nano and the official instruction-tuned models, smallest first."""
