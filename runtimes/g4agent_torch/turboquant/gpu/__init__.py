"""The compressed cache on GPUs: Triton kernels that encode pages and attend to them.

decode_attention.py  attention over pages, by split-K      encode.py  vectors → pages
plan.py              what kernels are compiled for         kernels/   the kernels themselves

They run on CUDA tensors where Triton is installed (PyTorch's builds for CUDA bring it; extra `gpu`), and on a CPU in
Triton's interpreter (`TRITON_INTERPRET=1`, slow, for tests). `G4AGENT_KV_KERNEL` (`native.py`) chooses here too: `auto`
and `triton` use them, `torch` and the bodies of the CPU kernel do not.

This module imports neither torch nor Triton.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final

from g4agent.errors import ConfigError
from g4agent_torch.turboquant import native

if TYPE_CHECKING:
    import torch

    from g4agent.cli.doctor import Finding

LEAST_TRITON: Final = (3, 4)
"""Older ones cannot carry tuples of tensors through a loop."""
LEAST_CAPABILITY: Final = (8, 0)
"""Ampere: older GPUs were never tried."""


def runs_on(device: torch.device) -> bool:
    """Whether the kernels are to be used for tensors of this device.

    Raises:
        ConfigError: `G4AGENT_KV_KERNEL` asks for them and they cannot run there.
    """
    asked = native.asked()
    if asked not in ("auto", "triton"):
        return False
    obstacle = _obstacle(device)
    if obstacle and asked == "triton":
        raise ConfigError(f"The Triton kernels cannot run: {obstacle}.", hint=f"Use {native.VARIABLE}=auto.")
    return not obstacle and (device.type == "cuda" or asked == "triton")


def examine() -> Finding:
    """A line of `g4agent doctor`: which path attention over compressed keys and values takes on a GPU."""
    from g4agent.cli.doctor import Finding
    from g4agent.cli.machine import gpus

    subject = "compressed KV, GPU"
    try:
        asked = native.asked()
    except ConfigError as error:
        return Finding(subject, "warning", str(error))
    if not gpus():
        return Finding(subject, "ok", "no GPU here that the Triton kernels could use")
    if asked not in ("auto", "triton"):
        return Finding(subject, "ok", f"attention in plain PyTorch, as {native.VARIABLE} says")
    if lack := _triton_lacks():
        return Finding(subject, "warning", f"attention in plain PyTorch: {lack}", "pip install 'g4agent[gpu]'")
    return Finding(subject, "ok", f"attention by the Triton kernels, Triton {version('triton')}")


def _obstacle(device: torch.device) -> str:
    """Why the kernels cannot run on a device; empty if they can."""
    if lack := _triton_lacks():
        return lack
    if device.type == "cuda":
        return _gpu_lacks(device)
    if device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1":
        return ""
    return f"the tensors are on {device.type}, not on a GPU"


@cache
def _gpu_lacks(device: torch.device) -> str:
    import torch

    if torch.version.cuda is None:
        return "the GPU is not one for CUDA"
    found = torch.cuda.get_device_capability(device)
    return "" if found >= LEAST_CAPABILITY else "the GPU is older than Ampere"


@cache
def _triton_lacks() -> str:
    try:
        installed = version("triton")
    except PackageNotFoundError:
        return "Triton is not installed"
    if tuple(map(int, installed.split(".")[:2])) < LEAST_TRITON:
        return f"Triton {installed} is older than {'.'.join(map(str, LEAST_TRITON))}"
    return ""
