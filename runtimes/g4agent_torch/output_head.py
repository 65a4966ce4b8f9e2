"""An output head for CPUs that reads a quarter of its weight: codes of 4 bits find the likely tokens, the weight itself
scores them.

In bfloat16 the 262,144 rows are the largest matrix that a token reads. Here all rows are scored from 4 bits, coarsely,
and the best of them again from the weight, which is kept for the embedding anyway. Tokens behind these keep their
coarse scores, so distributions are changed in their tails; the most likely token only if its coarse score is that bad.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from g4agent.errors import ConfigError
from g4agent_torch.memory import HEAD_BITS, HEAD_GROUP, HEAD_ROWS, Shape

BEST: Final = 1024
"""Tokens scored by the weight."""
BLOCK_ROWS: Final = 8192
"""Encoded at once, so that there is never a float32 copy of the whole weight."""


def check(bits: str, device: torch.device, shape: Shape) -> None:
    """Refuses a head that cannot be.

    Raises:
        ConfigError: There are no such bits, or not for this device or model.
    """
    if bits not in HEAD_BITS:
        raise ConfigError(
            f"head_bits={bits!r} is no rate of the output head.", hint=f"Use {' or '.join(map(repr, HEAD_BITS))}."
        )
    if bits == "16":
        return
    if device.type != "cpu":
        raise ConfigError(
            f"An output head in {bits} bits runs on a CPU only, not on {device}.",
            hint="Use head_bits=16 or device=cpu.",
        )
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        raise ConfigError(
            "An output head in 4 bits is quicker on processors with AVX-512 only; here it would be slower.",
            hint="Use head_bits=16.",
        )
    if (hidden := shape.config["hidden_size"]) % HEAD_GROUP:
        raise ConfigError(
            f"The output head cannot be coded: its {hidden} columns are no multiple of {HEAD_GROUP}.",
            hint="Use head_bits=16.",
        )


class ScreenedHead(nn.Module):
    """Stands for the linear layer of a head.

    Args:
        weight: [vocabulary, hidden], float32 or bfloat16, on a CPU; kept, not copied.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self._weight = weight.detach()
        parts = [_coded(rows) for rows in self._weight.split(BLOCK_ROWS)]
        self.codes = torch.cat([codes for codes, _ in parts])
        """Uint8 [vocabulary, hidden / 2], in the layout of the product, with rows up to a multiple of `HEAD_ROWS`."""
        self.scales = torch.cat([scales for _, scales in parts], 1)
        """[hidden / HEAD_GROUP, vocabulary, 2]: the step between two levels, and the weight at level 8."""

    def forward(self, state: Tensor) -> Tensor:
        """Logits [vocabulary] of a state [hidden]."""
        coarse: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(state[None], self.codes, HEAD_GROUP, self.scales)
        logits = coarse[0, : len(self._weight)]
        best = logits.topk(min(BEST, len(logits)), sorted=False).indices
        logits[best] = functional.linear(state, self._weight[best])
        return logits


def _coded(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and scales of rows: levels from the least to the greatest weight of each group."""
    groups = functional.pad(rows, (0, 0, 0, -len(rows) % HEAD_ROWS)).float().unflatten(-1, (-1, HEAD_GROUP))
    least, most = groups.aminmax(dim=-1)
    step = ((most - least) / 15).clamp(min=1e-9).to(rows.dtype)
    middle = (least + 8 * step).to(rows.dtype)
    levels = ((groups - middle.float()[..., None]) / step.float()[..., None]).round() + 8
    codes = torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels.clamp(0, 15).int().flatten(1), 1)
    return codes, torch.stack([step, middle], -1).transpose(0, 1).contiguous()
