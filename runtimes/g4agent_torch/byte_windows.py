"""Sliding layers in 8 bits: each coordinate a signed byte, each vector a scale of its own.

Not rotated: that would make the error several times smaller (few coordinates of a key are large), but the whole window
would have to be turned back for every token, at more than the attention over it costs.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

from g4agent_torch.kv import WindowLayer

LARGEST: Final = 127
SCALE_BYTES: Final = 2


class ByteWindowLayer(WindowLayer):
    """A `WindowLayer` whose rows are uint8 [1, KV, T, D + 2]: coordinates, then the scale, a bfloat16.

    Every query reads every vector as its bytes say, its own too: what it sees does not depend on how a prompt was cut.

    Args:
        sliding_window: Positions of the window.
        dtype: The model's precision, in which vectors are handed out.
    """

    def __init__(self, sliding_window: int, dtype: torch.dtype) -> None:
        super().__init__(sliding_window)
        self.model_dtype = dtype

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        keys, values = super().update(to_bytes(key_states), to_bytes(value_states))
        return from_bytes(keys, self.model_dtype), from_bytes(values, self.model_dtype)

    def plain_bytes(self, row_bytes: int, heads: int) -> int:
        """What a row of `row_bytes` would take in the model's precision, of keys and values of `heads` KV heads."""
        return (row_bytes - 2 * heads * SCALE_BYTES) * self.model_dtype.itemsize


def to_bytes(x: Tensor) -> Tensor:
    """Vectors [..., D] → uint8 [..., D + 2]."""
    x = x.float()
    scale = (x.abs().amax(-1, keepdim=True) / LARGEST).bfloat16()
    codes = (x / scale.float().clamp(min=torch.finfo(torch.float32).tiny)).round()
    return torch.cat([codes.clamp(-LARGEST, LARGEST).to(torch.int8).view(torch.uint8), scale.view(torch.uint8)], -1)


def from_bytes(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Undoes `to_bytes`, in the given precision."""
    scale = rows[..., -SCALE_BYTES:].view(torch.bfloat16)
    return rows[..., :-SCALE_BYTES].view(torch.int8).to(dtype) * scale.to(dtype)
