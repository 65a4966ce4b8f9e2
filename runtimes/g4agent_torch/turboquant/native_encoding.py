"""`Codec.encode` by the native kernel, to the same bytes."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from g4agent_torch.turboquant import native
from g4agent_torch.turboquant.codec import Codec, Scale
from g4agent_torch.turboquant.layout import TOKEN_BLOCK, Order
from g4agent_torch.turboquant.native import BODIES, EncodeCall, kernel
from g4agent_torch.turboquant.rotation import Rotation, paley_matrix

MAX_SEGMENTS: Final = 2


def encode(codec: Codec, x: Tensor) -> Tensor:
    """Vectors [N, P, d] of any float dtype → streams, uint8 [N, stream_bytes]; in PyTorch where no kernel has the
    codec's order."""
    native = kernel() if x.device.type == "cpu" else None
    count, tokens, size = x.shape
    if native is None or codec.order is Order.TOKEN or tokens % TOKEN_BLOCK or len(codec.segments) > MAX_SEGMENTS:
        return codec.encode(x)
    x = x.float().contiguous()
    out = torch.empty(count, codec.stream_bytes(tokens), dtype=torch.uint8)
    call = EncodeCall(
        body=BODIES.index(native.body),
        streams=count,
        tokens=tokens,
        size=size,
        segments=len(codec.segments),
        value_order=codec.order is Order.VALUE,
        unbiased=codec.scale is Scale.UNBIASED,
        rotation=native_rotation(codec.rotation),
        x=x.data_ptr(),
        out=out.data_ptr(),
        stream_bytes=out.shape[1],
    )
    for to, segment in zip(call.segment, codec.segments, strict=False):
        book = segment.codebook
        table, midpoints, levels = (tensor.data_ptr() for tensor in book.tables())
        to.bits, to.dims, to.units = book.bits, book.dims, segment.units
        to.table, to.midpoints, to.levels = table, midpoints, levels
    native.library.g4_encode(call)
    return out


def native_rotation(rotation: Rotation) -> native.Rotation:
    """A rotation as the kernel takes it. It reads the tensors of `rotation`, which has to live as long."""
    return native.Rotation(rotation.signs.data_ptr(), paley_matrix().data_ptr(), rotation.norm)
