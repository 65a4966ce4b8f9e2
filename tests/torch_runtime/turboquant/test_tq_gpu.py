"""The Triton kernels without a GPU: right in the interpreter, compilable for one, and never run by mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from test_tq_native import value_only

from g4agent.cli import machine
from g4agent.cli.machine import Gpu
from g4agent.errors import ConfigError
from g4agent_torch.turboquant import codebooks, gpu
from g4agent_torch.turboquant.codec import RATES
from g4agent_torch.turboquant.formats import LayerFormat
from g4agent_torch.turboquant.gpu import ahead, decode_attention
from g4agent_torch.turboquant.gpu.plan import FLOAT_TERMS, HALF_TERMS, MAX_ROWS, polynomial
from g4agent_torch.turboquant.native import VARIABLE

CPU = torch.device("cpu")
EXACT, HALF = 1e-4, 5e-3
"""Relative L2 errors with float32 products (measured: 1e-5 at most) and with those of tensor cores (0.003)."""
LAYERS = {
    "Gemma 3 270M": (1, 256, 0, False),
    "Gemma 4 E2B": (1, 512, 0, False),
    "Gemma 4 E4B": (2, 512, 0, False),
    "31B": (4, 512, 64, False),
    "Llama 3.2 1B": (8, 64, 0, True),
    "Llama 3.1 8B": (8, 128, 0, True),
}
"""KV heads, head size, rotary pairs, fine keys."""


def interpreted(*options: str) -> dict[str, Any]:
    """What `interpreted_kernels.py` found."""
    program = Path(__file__).parent / "interpreted_kernels.py"
    command = [sys.executable, "-W", "ignore", str(program), *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check(found: dict[str, Any]) -> None:
    """Wrong bits, scales, angles or masks give errors near 1."""
    for case, errors in found["attention"].items():
        assert errors["exact"] < EXACT and errors["exact lse"] < EXACT, case
        assert errors["half"] < HALF and errors["half lse"] < HALF, case
    assert not any(found["encode"].values()), f"pages have other bytes: {found['encode']}"
    assert all(error < HALF for error in found["paged"].values()), found["paged"]


@pytest.mark.timeout(300)
def test_kernels_agree_with_plain_pytorch() -> None:
    """Decode attention over decoded vectors, pages to the byte, and a whole layer with sinks and a masked tail."""
    check(interpreted())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kernels_agree_with_plain_pytorch_at_every_shape_and_rate() -> None:
    check(interpreted("--all"))


@pytest.mark.parametrize("bits", HALF_TERMS)
def test_polynomials_give_the_levels(bits: int) -> None:
    """The short one's error must be lost in that of the codes: 0.02 % of its square."""
    levels = codebooks.scalar(bits).levels[:, 0].double()
    half = len(levels) / 2
    x = (torch.arange(len(levels)) + 0.5 - half).double() / half
    exact = 1e-12 if FLOAT_TERMS[bits] == len(levels) // 2 else 1e-7
    for terms, limit in ((FLOAT_TERMS[bits], exact), (HALF_TERMS[bits], 3e-3)):
        made = sum(c * x ** (2 * i + 1) for i, c in enumerate(polynomial(bits, terms)))
        assert (made - levels).abs().max() < limit


@pytest.mark.parametrize("rate", ["4", "3.5"])
def test_kernels_compile_for_a_hopper_gpu(rate: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tensor cores multiply, the queries' side is eight wide, and no register spills; so the interpreter can't say."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    layer = LayerFormat(1, 128, rate)
    found = ahead.attention(layer, rows=8)
    assert "wgmma.mma_async.sync.aligned.m64n8k16" in found.ptx and "fma.rn.f16x2" in found.ptx
    assert found.spilled == 0
    encoding = ahead.encoding(layer)
    for resources in (*encoding, ahead.reducing(128, 66)):
        assert resources.spilled == 0, resources.kernel
    for rounding in (encoding[1].ptx, encoding[4].ptx):
        assert "fma.rn.f32" not in rounding and "div.full" not in rounding, "codes would differ from PyTorch's"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_compiles(name: str, rate: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Registers that spill cost little up to some hundred bytes; beyond, tiles are too large."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    heads, size, pairs, fine_keys = LAYERS[name]
    layer = LayerFormat(heads, size, rate, value_only(size, pairs) if pairs else None, fine_keys=fine_keys)
    for resources in (ahead.attention(layer, rows=8), *ahead.encoding(layer)):
        assert resources.spilled <= (128 if pairs else 0), resources
        assert resources.shared <= 227 * 1024


def test_pages_are_split_for_few_rows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token's query has to keep 132 processors busy; 128 positions of a prompt do, and would hold half a gigabyte."""
    monkeypatch.setattr(decode_attention, "_programs", lambda device: 264)
    heads, groups = 4, 8 * 128 // MAX_ROWS
    assert decode_attention._splits(2048, heads, CPU) == 66 and decode_attention._splits(3, heads, CPU) == 3
    assert decode_attention._splits(2048, heads * groups, CPU) == 1


def test_tensors_of_the_cpu_never_reach_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """And asking for them by name is no wish."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    for choice in ("auto", "torch", "portable"):
        monkeypatch.setenv(VARIABLE, choice)
        assert not gpu.runs_on(CPU)
    monkeypatch.setenv(VARIABLE, "triton")
    with pytest.raises(ConfigError, match="on cpu, not on a GPU"):
        gpu.runs_on(CPU)


def test_importing_the_cache_imports_no_triton() -> None:
    """Most machines have none; those that do shall not pay for it before the first page."""
    program = "import sys, g4agent_torch.turboquant.attention; sys.exit('triton.language' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_doctor_names_what_runs_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU, a GPU with Triton, without it, and with another choice."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(machine, "gpus", list)
    assert "no GPU" in gpu.examine().detail
    monkeypatch.setattr(machine, "gpus", lambda: [Gpu("NVIDIA H100", 80 << 30, 79 << 30)])
    assert gpu.examine().detail == f"attention by the Triton kernels, Triton {version('triton')}"
    monkeypatch.setattr(gpu, "_triton_lacks", lambda: "Triton is not installed")
    assert gpu.examine().status == "warning" and "g4agent[gpu]" in gpu.examine().hint
    monkeypatch.setenv(VARIABLE, "torch")
    assert "plain PyTorch, as G4AGENT_KV_KERNEL says" in gpu.examine().detail
