"""Other output heads for a pass of one token, in the place of `functional.linear`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Head = Callable[[Tensor], Tensor]
"""A state [hidden] → logits [vocabulary]."""
GROUP = 32
"""Weights of a row that share a scale and an offset in 4 bits."""
ROWS = 8192
"""Packed at once: no float32 copy of the whole weight is made."""


def prepacked(weight: Tensor) -> Head:
    """Lossless: oneDNN's own layout, a second copy of the weight."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, 1)

    def head(state: Tensor) -> Tensor:
        logits: Tensor = torch.ops.mkldnn._linear_pointwise(state[None], packed, None, "none", [], "")
        return logits[0]

    return head


def int4(weight: Tensor) -> Head:
    """Lossy: the nearest of 16 levels between the least and the greatest weight of each group."""
    parts = [_levels(rows) for rows in weight.split(ROWS)]
    packed = torch.cat([torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels, 1) for levels, _ in parts])
    scales = torch.cat([scales for _, scales in parts], 1)

    def head(state: Tensor) -> Tensor:
        logits: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(state[None], packed, GROUP, scales)
        return logits[0]

    return head


def _levels(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Int32 levels [rows, hidden], and bfloat16 [groups, rows, 2]: a step, and the weight of level 8."""
    groups = rows.float().unflatten(-1, (-1, GROUP))
    least, most = groups.aminmax(dim=-1)
    step = ((most - least) / 15).clamp(min=1e-9).bfloat16()
    middle = (least + 8 * step).bfloat16()
    levels = ((groups - middle.float()[..., None]) / step.float()[..., None]).round() + 8
    return levels.clamp(0, 15).int().flatten(1), torch.stack([step, middle], -1).transpose(0, 1).contiguous()
