"""A bfloat16 kernel as well tuned as ours: `_bf16_attention.cpp`, compiled at first use and called by ctypes."""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from g4agent_torch.turboquant.compiling import COMPILE_SECONDS, compiler

SOURCE: Final = Path(__file__).with_suffix(".cpp")
FLAGS: Final = ("-std=c++17", "-O3", "-shared", "-fPIC", "-Wno-psabi", "-fno-math-errno", "-fno-trapping-math")
BLOCK: Final = 128
"""Tokens of a block of the cache, as in the source."""
LANES: Final = 32


@cache
def library() -> ctypes.CDLL | None:
    """The kernel; None where there is no compiler, it fails, or the processor has no AVX512_BF16."""
    key = hashlib.sha256("\0".join(FLAGS).encode() + SOURCE.read_bytes()).hexdigest()[:24]
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    file = Path(home, "g4agent", "benchmarks", f"bf16-{key}.so")
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not file.is_file():
            _compile_to(file)
        loaded = ctypes.CDLL(str(file))
    except (subprocess.SubprocessError, OSError):
        return None
    return loaded if loaded.bf16_runs_here() else None


def _compile_to(file: Path) -> None:
    """The file appears whole or not at all."""
    program = compiler()
    if program is None:
        raise FileNotFoundError("a C++ compiler")
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        made = Path(folder, file.name)
        command = [program, *FLAGS, str(SOURCE), "-o", str(made), "-lm"]
        subprocess.run(command, check=True, capture_output=True, timeout=COMPILE_SECONDS)
        made.replace(file)


def bf16_attention(query: Tensor, keys: Tensor, values: Tensor) -> Callable[[], Tensor] | None:
    """A run of the kernel; the cache is copied into its layout here, once. None: it does not run on this machine.

    Args:
        query: Bfloat16 [KV, 4 or 8, D], scaled; D is a multiple of 32 and at most 512.
        keys: Bfloat16 [KV, T, D]; T is a multiple of 128.
        values: The same.

    Returns:
        What gives the attention, float32 [KV, 4 or 8, D], every time in the same tensor.
    """
    kernel = library()
    if kernel is None:
        return None
    heads, group, size = query.shape
    assert group in (4, 8) and size % LANES == 0 and size <= 512 and keys.shape[1] % BLOCK == 0
    query, stream, out = query.contiguous(), packed(keys, values), torch.empty(query.shape)

    def run() -> Tensor:
        pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (query, stream))
        kernel.bf16_attention(*pointers, heads, group, size, stream.shape[1], ctypes.c_void_p(out.data_ptr()))
        return out

    return run


def packed(keys: Tensor, values: Tensor) -> Tensor:
    """Keys and values bfloat16 [KV, T, D] as the kernel's stream, bfloat16 [KV, T / 128, 2, 128 · D], in huge pages."""
    heads, tokens, size = keys.shape
    blocks = tokens // BLOCK
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # shared memory has no huge pages
    memory = mmap.mmap(-1, 2 * keys.numel() * keys.element_size(), flags=private)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    stream = torch.frombuffer(memory, dtype=torch.bfloat16).view(heads, blocks, 2, BLOCK * size)
    by_token = keys.view(heads, blocks, BLOCK // LANES, LANES, size // 2, 2)
    stream[:, :, 0].view(heads, blocks, BLOCK // LANES, size // 2, LANES, 2).copy_(by_token.transpose(3, 4))
    by_pair = values.view(heads, blocks, BLOCK // 2, 2, size // LANES, LANES)
    rows = by_pair.permute(0, 1, 4, 2, 5, 3)  # [KV, blocks, tiles, pairs of tokens, dimensions, 2]
    stream[:, :, 1].view(rows.shape).copy_(rows)
    return stream
