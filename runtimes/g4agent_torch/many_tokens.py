"""How a pass of many tokens multiplies by bfloat16 weights on a CPU without products of bfloat16: in float32.

There torch's own product widens the numbers of a weight each time it uses them, which takes five times as long as a
product in float32. Here a block of a weight is widened once for all tokens of the pass. The sums are the same, in
float32 and rounded once, and no second copy of the weights is kept.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

FEW: Final = 4
"""Rows below which torch's own product is as fast."""
BLOCK_NUMBERS: Final = 1 << 20
"""Of a weight that are widened at a time: they stay near the processor."""


def multiplies_slowly(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether products of this type are so slow here that they should be `widened`."""
    return device.type == "cpu" and dtype == torch.bfloat16 and not _has_bfloat16()


def widened(wanted: bool) -> AbstractContextManager[object]:
    """Around a pass without gradients: linear layers of bfloat16 multiply in float32, if that is wanted."""
    return _Widened() if wanted else nullcontext()


def _has_bfloat16() -> bool:
    """Whether oneDNN multiplies bfloat16 on this processor, with its own instructions or with AVX-512."""
    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


class _Widened(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.linear and not kwargs and args[0].dtype == args[1].dtype == torch.bfloat16:
            x, weight, *bias = args
            if weight.dim() == 2 and x.numel() >= FEW * weight.shape[1]:
                return _linear(x, weight, *bias)
        return func(*args, **(kwargs or {}))


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`functional.linear`: bfloat16 [..., in] by bfloat16 [out, in], to bfloat16 [..., out]."""
    rows, (count, size) = x.reshape(-1, x.shape[-1]).float(), weight.shape
    out = x.new_empty(len(rows), count)
    step = min(count, max(1, BLOCK_NUMBERS // size))
    wide = _block(step * size).view(step, size)
    for start in range(0, count, step):
        some = weight[start : start + step]
        products = rows @ wide[: len(some)].copy_(some).T
        out[:, start : start + step] = products if bias is None else products.add_(bias[start : start + step])
    return out.view(*x.shape[:-1], count)


_held = threading.local()


def _block(numbers: int) -> Tensor:
    """Float32 memory of this thread that is used again: fresh memory takes the system longer than widening."""
    block: Tensor | None = getattr(_held, "block", None)
    if block is None or len(block) < numbers:
        with torch.inference_mode(False):  # or no pass outside that mode could write to it again
            block = _held.block = torch.empty(numbers)
    return block[:numbers]
