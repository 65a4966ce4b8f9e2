"""How a pass of one token multiplies on a CPU: by the kernel that reads bfloat16 weights at the speed of memory.

Such a pass reads each weight once and computes next to nothing. oneDNN, torch's choice for bfloat16 on x86, rearranges
the weights for larger products first, which with AVX-512 takes twice the time; torch's own product of a matrix and a
vector, which runs where oneDNN is switched off, does not. Both add up in float32 and round once, and need no second
copy. With AVX2 both take the same time, and without it torch's own takes longer.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch

_onednn: Any = torch.backends.mkldnn
_switch: Any = torch._C._set_mkldnn_enabled
"""Works where `torch.backends.disable_global_flags` forbids the public way, and leaves other settings alone."""
_CHOSEN: Final[bool] = _onednn.enabled
"""Whether oneDNN was on when this was loaded. Each pass sets it anew: who else switches it may have saved, and so
brings back, the state within a pass."""
_here = threading.local()
"""Has `switched_off` where this thread is within a pass of one token."""
_one_at_a_time = threading.Lock()
"""The switch is one for the whole process, and without oneDNN a pass of many tokens takes ten times as long: no pass of
another model may see it off."""


def has_onednn() -> bool:
    """Whether torch multiplies by oneDNN here, passes of one token aside."""
    return _CHOSEN and _onednn.is_available()


def reads_faster_alone(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether passes of one token gain: with AVX-512 only, and float32 does not go through oneDNN."""
    return device.type == "cpu" and dtype == torch.bfloat16 and torch.backends.cpu.get_cpu_capability() == "AVX512"


@contextmanager
def pass_of(tokens: int) -> Iterator[None]:
    """Around a pass of a bfloat16 model on a CPU. Waits for those of other threads; not reentrant.

    What runs elsewhere in the process during a pass of one token, and is not ours, takes torch's own kernels too.
    """
    with _one_at_a_time:
        before = _onednn.enabled
        _here.switched_off = tokens == 1
        _switch(_CHOSEN and tokens > 1)
        try:
            yield
        finally:
            _switch(before)
            _here.switched_off = False


@contextmanager
def products_of_many_rows() -> Iterator[None]:
    """Within a pass of one token: around attention and the like, whose matrices oneDNN multiplies faster as ever."""
    if not getattr(_here, "switched_off", False):
        yield
        return
    _switch(_CHOSEN)
    try:
        yield
    finally:
        _switch(False)


def _after_fork() -> None:
    """The child has no thread that could be within a pass, but copies of the lock and the switch as they were."""
    global _one_at_a_time
    if _one_at_a_time.locked():
        _switch(_CHOSEN)
    _one_at_a_time = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
