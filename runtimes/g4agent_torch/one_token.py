"""How a pass of one token multiplies on a CPU: by the kernel that reads bfloat16 weights at the speed of memory.

Such a pass reads each weight once and computes next to nothing. oneDNN, torch's choice for bfloat16 on x86, rearranges
the weights for larger products first and takes twice the time; torch's own product of a matrix and a vector, which
runs where oneDNN is switched off, does not. Both add up in float32 and round once, and need no second copy.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch

_ONE_AT_A_TIME: Final = threading.Lock()
"""The switch is one for the whole process, and without oneDNN a pass of many tokens takes ten times as long: no pass of
another model may see it off."""


_onednn: Any = torch.backends.mkldnn


def reads_faster_alone(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether passes of one token gain. Float32 does not go through oneDNN; processors other than x86 were not
    measured."""
    return device.type == "cpu" and dtype == torch.bfloat16 and platform.machine() in ("x86_64", "AMD64")


@contextmanager
def pass_of(tokens: int) -> Iterator[None]:
    """Around a pass of a bfloat16 model on a CPU. Waits for those of other threads; not reentrant.

    What runs elsewhere in the process during a pass of one token, and is not ours, takes torch's own kernels too.
    """
    with _ONE_AT_A_TIME:
        before = _onednn.enabled
        _onednn.enabled = before and tokens > 1
        try:
            yield
        finally:
            _onednn.enabled = before
