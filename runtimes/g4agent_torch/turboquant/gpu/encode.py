"""Encoding of pages by the Triton kernels: the same bytes as `LayerFormat.encode` in PyTorch gives."""

from __future__ import annotations

from functools import cache
from typing import Final, NamedTuple

import torch
from torch import Tensor

from g4agent_torch.turboquant.codebooks import Codebook
from g4agent_torch.turboquant.codec import Codec, Scale
from g4agent_torch.turboquant.formats import LayerFormat
from g4agent_torch.turboquant.layout import Order
from g4agent_torch.turboquant.rotation import PALEY_ORDER, paley

BLOCK: Final = 8
"""Vectors, or bundles, of one program."""
INTERPRETED_BLOCK: Final = 64
"""The same in Triton's interpreter, where programs cost more than vectors."""
OPTIONS: Final = {"num_warps": 8, "enable_fp_fusion": False}


class _Tables(NamedTuple):
    """A codebook's tables on one device."""

    cells: Tensor
    midpoints: Tensor
    levels: Tensor


def encode(keys: Tensor, values: Tensor, layer: LayerFormat) -> Tensor:
    """See `LayerFormat.encode`: keys and values [KV, P, D] → uint8 [page_bytes], on their device."""
    first, second = keys, values
    if (shared := layer.value_only) is not None:
        first, second = values[..., shared.rest], values[..., shared.rotary]
    page = torch.empty(layer.page_bytes, dtype=torch.uint8, device=values.device)
    start = 0
    for stream, vectors in zip(layer.streams, (first, second), strict=True):
        _encode_stream(stream, vectors, page, start, layer)
        start += stream.stream_bytes(layer.tokens)
    return page


def _encode_stream(stream: Codec, x: Tensor, page: Tensor, start: int, layer: LayerFormat) -> None:
    """Writes one stream of all heads, from byte `start` of each head on."""
    from g4agent_torch.turboquant.gpu.kernels.encode import pack_kernel, quantise_kernel

    y = rotate(stream, x)
    vectors, size = y.shape
    main, tail = stream.segments[0], stream.segments[-1]
    head = main.size if main is not tail else 0
    sizes = stream.part_bytes(layer.tokens)
    scales = start + sum(sizes[:-1])
    codes = [torch.empty(vectors, s.units, dtype=torch.uint8, device=x.device) for s in stream.segments]
    block = _block(x.device)
    quantise_kernel[(-(-vectors // block),)](
        y, *_tables(main.codebook, x.device), *_tables(tail.codebook, x.device), codes[0], codes[-1], page, vectors,
        SIZE=size, HEAD=head, DIMS=main.codebook.dims, UNBIASED=stream.scale is Scale.UNBIASED, PAGE=layer.tokens,
        HEAD_BYTES=layer.head_bytes, SCALES=scales, LOG=_log(size // 3 if size % 3 == 0 else size), BLOCK=block,
        **OPTIONS,
    )  # fmt: skip
    for segment, part, length in zip(stream.segments, codes, sizes, strict=False):
        bundles = layer.tokens // 32 * segment.units // 16
        pack_kernel[(-(-bundles // block), layer.heads)](
            part, page, UNITS=segment.units, BITS=segment.codebook.bits, KEY=stream.order is Order.KEY,
            PAGE=layer.tokens, HEAD_BYTES=layer.head_bytes, START=start, BLOCK=block, **OPTIONS,
        )  # fmt: skip
        start += length


def rotate(stream: Codec, x: Tensor) -> Tensor:
    """`Rotation.forward` of vectors [..., d], as float32 [vectors, d]."""
    from g4agent_torch.turboquant.gpu.kernels.encode import rotate_kernel

    size = stream.size
    flat = x.reshape(-1, size).float().contiguous()
    power_of_two = size & (size - 1) == 0
    y = torch.empty_like(flat)
    block = _block(x.device)
    rotate_kernel[(-(-len(flat) // block),)](
        flat, _signs(stream, x.device), y, len(flat), size**-0.5, SIZE=size, PALEY=() if power_of_two else paley(),
        LOG=_log(size if power_of_two else size // PALEY_ORDER), BLOCK=block, **OPTIONS,
    )  # fmt: skip
    return y


def _block(device: torch.device) -> int:
    return BLOCK if device.type == "cuda" else INTERPRETED_BLOCK


def _log(power: int) -> int:
    return power.bit_length() - 1


@cache
def _signs(stream: Codec, device: torch.device) -> Tensor:
    return stream.rotation.signs.to(device)


@cache
def _tables(codebook: Codebook, device: torch.device) -> _Tables:
    cells, midpoints, levels = codebook.tables()
    return _Tables(cells.to(device), midpoints.to(device), levels.to(device).flatten().contiguous())
