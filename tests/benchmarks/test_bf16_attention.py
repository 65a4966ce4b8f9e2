"""The bfloat16 kernel that ours is held against computes attention; a wrong one would be a wrong measure."""

from __future__ import annotations

from pathlib import Path

import _bf16_attention
import pytest
import torch
from _bf16_attention import BLOCK, bf16_attention, library, packed

from g4agent_torch.turboquant.compiling import compiler

CPU = Path("/proc/cpuinfo")
NEEDED = "avx512_bf16"


@pytest.mark.parametrize("tokens", [BLOCK, 8 * BLOCK])
@pytest.mark.parametrize(("kv_heads", "group", "size"), [(1, 4, 256), (2, 4, 512), (1, 8, 512), (4, 8, 512)])
def test_kernel_agrees_with_float32(kv_heads: int, group: int, size: int, tokens: int) -> None:
    """Same numbers, same softmax; growing keys let the maximum rise from block to block."""
    torch.manual_seed(0)
    query = (torch.randn(kv_heads, group, size) * size**-0.5).bfloat16()
    keys, values = torch.randn(2, kv_heads, tokens, size)
    keys, values = (keys * torch.linspace(1, 4, tokens)[:, None]).bfloat16(), values.bfloat16()
    run = bf16_attention(query, keys, values)
    if run is None:
        assert not CPU.exists() or NEEDED not in CPU.read_text() or compiler() is None
        return
    expected = torch.softmax(query.float() @ keys.float().transpose(1, 2), -1) @ values.float()
    for _ in range(2):  # a second run starts anew
        assert (run() - expected).norm() < 0.01 * expected.norm()


def test_cache_holds_every_number_once() -> None:
    """A key that stood twice or a value that was left out would be traffic that nobody has."""
    keys, values = torch.arange(2 * BLOCK * 32).view(2, 1, BLOCK, 32).short().view(torch.bfloat16)
    stream = packed(keys, values).view(torch.int16)
    assert torch.equal(stream.flatten().sort().values, torch.arange(2 * BLOCK * 32).short())


def test_without_a_compiler_there_is_no_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The benchmark then leaves the column empty instead of failing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(_bf16_attention, "compiler", lambda: None)
    library.cache_clear()
    try:
        assert bf16_attention(*torch.zeros(3, 1, 8, 64).bfloat16()) is None
    finally:
        library.cache_clear()
