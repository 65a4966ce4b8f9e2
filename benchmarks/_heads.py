"""Other output heads for a pass of one token, in the place of `functional.linear`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from g4agent_torch.memory import HEAD_GROUP
from g4agent_torch.output_head import ScreenedHead

Head = Callable[[Tensor], Tensor]
"""A state [hidden] → logits [vocabulary]."""


def prepacked(weight: Tensor) -> Head:
    """Lossless: oneDNN's own layout, a second copy of the weight."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, 1)

    def head(state: Tensor) -> Tensor:
        logits: Tensor = torch.ops.mkldnn._linear_pointwise(state[None], packed, None, "none", [], "")
        return logits[0]

    return head


def int4(weight: Tensor) -> Head:
    """Lossy: the codes of our head alone, without scoring the best by the weight."""
    made = ScreenedHead(weight)

    def head(state: Tensor) -> Tensor:
        logits: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(state[None], made.codes, HEAD_GROUP, made.scales)
        return logits[0]

    return head
