"""From vectors to packed streams and back: rotation, codes, one scale per vector (`layout.py` says where the bits lie).

After TurboQuant (arXiv 2504.19874), algorithm 1, with two changes that cost no bytes. The stored number is not the
norm ‖x‖ but a scale that makes the decoded vector unbiased or of the right norm; and rates between whole bits use
pair codes instead of two scalar rates side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Final

import torch
from torch import Tensor

from g4agent_torch.turboquant import codebooks
from g4agent_torch.turboquant.codebooks import Codebook
from g4agent_torch.turboquant.layout import Order, pack, packed_bytes, unpack
from g4agent_torch.turboquant.rotation import Rotation, is_rotatable

RATES: Final = ("4", "3.5", "2.5")
"""Bits per coordinate with everything counted, best first."""
KEYS_FIRST: Final = {"4": ("5", "3"), "3.5": ("4", "3"), "2.5": ("3", "2")}
"""Rates of keys and of values that make a rate together: an error in a key moves the weights of all values."""
SCALE_BYTES: Final = 2
_HALF_MAX: Final = 65504.0


class Scale(Enum):
    """What a vector's scale makes right; y is the rotated vector and c its levels."""

    UNBIASED = "unbiased"
    """‖y‖² / ⟨y, c⟩: ⟨x, x̂⟩ = ‖x‖², so sums over many vectors do not shrink. For values."""
    NORM = "norm"
    """‖y‖ / ‖c‖: ‖x̂‖ = ‖x‖. For keys, where a little bias is cheaper than noise."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Neighbouring coordinates that share a codebook."""

    codebook: Codebook
    start: int
    size: int
    """Coordinates from `start` on."""

    @property
    def units(self) -> int:
        return self.size // self.codebook.dims


@dataclass(frozen=True, slots=True)
class Codes:
    """Quantised vectors, not yet packed."""

    segments: tuple[Tensor, ...]
    """Per segment, uint8 [..., P, units]."""
    scales: Tensor
    """Float16 [..., P]."""


class Codec:
    """Vectors of one size at one rate. Made by `codec` or `Codec.plain`.

    Args:
        size: Coordinates of a vector, d.
        segments: Codebooks over its rotated coordinates, in order and without gaps.
        scale: Which scale to store.
        order: How codes are grouped in a stream.
    """

    def __init__(self, size: int, segments: tuple[Segment, ...], scale: Scale, order: Order) -> None:
        assert sum(segment.size for segment in segments) == size
        self.size, self.segments, self.scale, self.order = size, segments, scale, order
        self.rotation = Rotation(size)

    @classmethod
    def plain(cls, size: int, bits: int, scale: Scale = Scale.NORM, order: Order = Order.KEY) -> Codec:
        """Scalar codes of `bits` for every coordinate, and the scale on top: bits + 16 / size per coordinate."""
        return cls(size, (Segment(codebooks.scalar(bits), 0, size),), scale, order)

    def stream_bytes(self, tokens: int) -> int:
        """Bytes of a stream of `tokens` vectors."""
        return sum(self.part_bytes(tokens))

    def part_bytes(self, tokens: int) -> tuple[int, ...]:
        """Bytes of each segment, then of the scales: the parts of a stream, in order."""
        packed = (packed_bytes(tokens, segment.units, segment.codebook.bits) for segment in self.segments)
        return (*packed, tokens * SCALE_BYTES)

    def encode(self, x: Tensor) -> Tensor:
        """Vectors [..., P, d] of any float dtype → streams, uint8 [..., stream_bytes]."""
        return self.pack(self.quantise(self.rotation.forward(x)))

    def decode(self, stream: Tensor, tokens: int) -> Tensor:
        """Streams, uint8 [..., stream_bytes] → float32 [..., tokens, d]."""
        return self.rotation.inverse(self.dequantise(stream, tokens))

    def quantise(self, y: Tensor) -> Codes:
        """Rotated vectors, float32 [..., P, d] → codes. Each vector by itself: the same alone as in a batch."""
        power = _row_sum(y * y)
        u = y * torch.where(power > 0, _root(self.size / power), 0.0)[..., None]
        codes = tuple(
            segment.codebook.quantise(u[..., segment.start : segment.start + segment.size]) for segment in self.segments
        )
        levels = self.levels(codes)
        if self.scale is Scale.UNBIASED:
            scales = power / _row_sum(y * levels)
        else:
            scales = _root(power / _row_sum(levels * levels))
        scales = torch.where(power > 0, scales, 0.0)  # for the zero vector, whose levels say nothing
        return Codes(codes, scales.clamp(max=_HALF_MAX).half())

    def levels(self, codes: tuple[Tensor, ...]) -> Tensor:
        """Codes of each segment → unscaled levels, float32 [..., P, d]."""
        return torch.cat([s.codebook.lookup(c) for s, c in zip(self.segments, codes, strict=True)], -1)

    def pack(self, codes: Codes) -> Tensor:
        """Codes → streams, uint8 [..., stream_bytes]."""
        parts = [
            pack(part, segment.codebook.bits, self.order)
            for segment, part in zip(self.segments, codes.segments, strict=True)
        ]
        return torch.cat([*parts, codes.scales.contiguous().view(torch.uint8)], -1)

    def unpack(self, stream: Tensor, tokens: int) -> Codes:
        """Undoes `pack`."""
        *parts, scales = stream.split(list(self.part_bytes(tokens)), -1)
        codes = tuple(
            unpack(part, tokens, segment.units, segment.codebook.bits, self.order)
            for segment, part in zip(self.segments, parts, strict=True)
        )
        return Codes(codes, scales.contiguous().view(torch.float16))

    def dequantise(self, stream: Tensor, tokens: int) -> Tensor:
        """Streams → vectors in the rotated basis, float32 [..., tokens, d]."""
        codes = self.unpack(stream, tokens)
        return self.levels(codes.segments) * codes.scales.float()[..., None]


@cache
def codec(size: int, rate: str, scale: Scale, order: Order) -> Codec:
    """The codec of a rate: exactly `rate` · `size` / 8 bytes per vector, scale included.

    Args:
        size: Coordinates; a multiple of 32 that `is_encodable`.
        rate: One of `RATES`, or of those in `KEYS_FIRST`.
        scale: Which scale to store.
        order: How codes are grouped.
    """
    assert is_encodable(size), size
    main, tail = {
        "5": (codebooks.scalar(5), codebooks.scalar(4)),
        "4": (codebooks.scalar(4), codebooks.scalar(3)),
        "3.5": (codebooks.pair(7), codebooks.pair(6)),
        "3": (codebooks.pair(6), codebooks.pair(5)),
        "2.5": (codebooks.pair(5), codebooks.pair(4)),
        "2": (codebooks.pair(4), codebooks.pair(3)),
    }[rate]
    head = size - 16 * tail.dims  # a bit less for each of 16 units: the scale's 16 bits
    segments = (Segment(main, 0, head), Segment(tail, head, size - head))
    return Codec(size, tuple(segment for segment in segments if segment.size), scale, order)


def is_encodable(size: int) -> bool:
    """Whether vectors of this size have a codec: 32, 64, 128, 256, 512, 96, 192, 384, ..."""
    return size % 32 == 0 and is_rotatable(size)


def _root(x: Tensor) -> Tensor:
    """The square root of float32, rounded right, as kernels have it: PyTorch's own may be off in the last bit."""
    return x.double().sqrt().float()


def _row_sum(x: Tensor) -> Tensor:
    """Sums [..., d] over d by halving: a fixed order of additions, whatever the batch."""
    while (size := x.shape[-1]) % 2 == 0:
        x = x[..., : size // 2] + x[..., size // 2 :]
    total = x[..., 0]
    for i in range(1, x.shape[-1]):
        total = total + x[..., i]
    return total
