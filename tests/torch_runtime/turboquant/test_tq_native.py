"""The native kernel: every body of it against plain PyTorch, and what happens where it cannot be had."""

from __future__ import annotations

import ctypes
import math
import platform
import shutil
import subprocess
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from g4agent.errors import ConfigError
from g4agent_torch.turboquant import compiling, native, native_attention, native_encoding
from g4agent_torch.turboquant.attention import Partial, as_read_here, decode_attention
from g4agent_torch.turboquant.cache import SINKS
from g4agent_torch.turboquant.codec import RATES, Codec, Scale, codec
from g4agent_torch.turboquant.formats import LayerFormat, ValueOnly
from g4agent_torch.turboquant.layout import Order
from g4agent_torch.turboquant.native import BODIES, VARIABLE, Call, Kernel

torch.set_num_threads(1)
LIMIT = 0.03
"""What integers may add to the error, relative L2."""
MEASURED = {1: {"4": 0.016, "3.5": 0.017, "2.5": 0.021}, 4: {"4": 0.024, "3.5": 0.024, "2.5": 0.033}}
"""Spread of the scores and rate → what they do add here. One vector of 32 numbers at 2.5 bits is over the limit."""
SHAPES = {
    "Gemma 3 270M": (1, 256, 4, 0),
    "Gemma 4 E4B": (2, 512, 4, 0),
    "Gemma 4 31B": (2, 512, 8, 64),
    "odd groups, small rotary part": (3, 128, 13, 16),
    "SmolLM2": (3, 64, 3, 0),
    "smallest": (1, 32, 1, 0),
}
"""KV heads, head size, queries per KV head, rotary pairs of a value-only layer."""
FINE_KEYS = ("SmolLM2",)


def available() -> list[str]:
    loaded = native._load("auto")
    assert loaded is not None, "no native kernel: is there a C++ compiler?"
    return list(BODIES[: BODIES.index(loaded.body) + 1])


def bodies() -> list[str]:
    """All that have processors of this kind: `compute` emulates what this one lacks."""
    return list(BODIES) if platform.machine() == "x86_64" else available()


@cache
def emulated() -> Kernel:
    """The kernel whose AVX-512 body is computed a lane at a time, by `emulated_avx512.h`."""
    assert "avx2" in available(), "the emulation needs AVX2"
    with tempfile.TemporaryDirectory() as folder:
        sources = shutil.copytree(compiling.SOURCES, Path(folder, "cpp"))
        shutil.copy(Path(__file__).with_name("emulated_avx512.h"), sources / "avx512.h")
        program, file = compiling.compiler(), Path(folder, "kernel.so")
        assert program is not None
        flags = [flag for flag in compiling.FLAGS if flag != "-O3"]
        command = [program, *flags, "-O1", str(sources / "kernel.cpp"), "-o", str(file), "-lm"]
        subprocess.run(command, check=True, capture_output=True)
        library = ctypes.CDLL(str(file))
    library.g4_decode_attention.argtypes = [ctypes.POINTER(Call)]
    library.g4_decode_attention.restype = None
    return Kernel(library, file, "avx512")


def value_only(size: int, pairs: int) -> ValueOnly:
    rotary = torch.cat([torch.arange(pairs), torch.arange(size // 2, size // 2 + pairs)])
    rest = torch.tensor([i for i in range(size) if i % (size // 2) >= pairs])
    return ValueOnly(torch.linspace(0.5, 1.5, size), 1e6 ** (-torch.arange(pairs) * 2 / size), rotary, rest)


def data(
    shape: str, rate: str, pages: int, spread: float = 1, token_order: bool = False
) -> tuple[Tensor, list[Tensor], LayerFormat]:
    """Queries, pages and their format; logits have the standard deviation `spread`."""
    heads, size, rows, pairs = SHAPES[shape]
    generator = torch.Generator().manual_seed(0)
    length = pages * 128
    keys, values = torch.randn(2, heads, length, size, generator=generator)
    shared = value_only(size, pairs) if pairs else None
    if shared is not None:
        keys = values * shared.key_norm
        keys[..., shared.rotary] = shared.keys(values[..., shared.rotary], torch.arange(SINKS, SINKS + length))
    layer = LayerFormat(heads, size, rate, shared, fine_keys=shape in FINE_KEYS, token_order=token_order)
    encoded = [layer.encode(keys[:, i : i + 128], values[:, i : i + 128]) for i in range(0, length, 128)]
    return torch.randn(heads, rows, size, generator=generator) * spread / size**0.5, encoded, layer


def error(out: Tensor, expected: Tensor) -> float:
    return ((out - expected).norm() / expected.norm()).item()


def compute(
    body: str, monkeypatch: pytest.MonkeyPatch, query: Tensor, pages: list[Tensor], layer: LayerFormat
) -> Partial:
    if body in BODIES and body not in available():
        return native_attention.decode_attention(emulated(), query, pages, layer, SINKS)
    monkeypatch.setenv(VARIABLE, body)
    return decode_attention(query, pages, layer, SINKS)


def hard(generator: torch.Generator, size: int) -> Tensor:
    """Vectors [3, 128, size] of very different lengths; among them zero, one large coordinate, and subnormal ones."""
    x = torch.randn(3, 128, size, generator=generator) * torch.randn(3, 128, 1, generator=generator).exp()
    x[0, 5], x[1, 8, 1:], x[1, 7], x[2, 9], x[2, 10] = 0, 0, x[1, 7] * 1e6, x[2, 9] * 1e-9, x[2, 10] * 1e-22
    return x


@pytest.mark.parametrize("size", [32, 64, 96, 128, 256, 384, 512])
def test_every_body_encodes_to_the_bytes_of_plain_pytorch(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are named by what they were made of: another byte would be another file under the same name."""
    generator = torch.Generator().manual_seed(size)
    plain = [Codec.plain(size, bits) for bits in range(1, 6)]
    for made in [*(codec(size, r, s, o) for r in RATES for s in Scale for o in (Order.KEY, Order.VALUE)), *plain]:
        x = hard(generator, size)
        expected = made.encode(x)
        for body in available():
            monkeypatch.setenv(VARIABLE, body)
            assert torch.equal(native_encoding.encode(made, x), expected), body
    monkeypatch.setenv(VARIABLE, "torch")
    assert torch.equal(native_encoding.encode(made, x.bfloat16()), made.encode(x.bfloat16()))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spread", [1, 4])
def test_every_body_agrees_with_plain_pytorch(
    shape: str, rate: str, spread: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong bit positions, scales, orders or angles give errors near 1; integers give a few percent, also where queries
    need their second bytes: with the first alone, twelve of the eighteen cases at a spread of 4 are over the bound. The
    portable body has floats."""
    inputs = data(shape, rate, 9, spread)
    expected = compute("reference", monkeypatch, *inputs)
    for body in bodies():
        got = compute(body, monkeypatch, *inputs)
        assert error(got.out, expected.out) < (1e-4 if body == "portable" else MEASURED[spread][rate]), body
        assert (got.lse - expected.lse).abs().max() < (2e-4 if body == "portable" else 0.005 * spread**2), body


def test_one_dominant_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one weight is nearly all, the output is that value; the running maximum comes in the last page."""
    query, pages, layer = data("Gemma 3 270M", "4", pages=6)
    keys, values = layer.decode(pages, SINKS)
    query = keys[:, -5:-4].expand_as(query).contiguous()
    for body in bodies():
        got = compute(body, monkeypatch, query, pages, layer)
        assert error(got.out, values[:, -5:-4].expand_as(got.out)) < LIMIT


@pytest.mark.parametrize("shape", ["Gemma 4 E4B", "Gemma 4 31B"])
def test_many_small_weights_are_not_rounded_to_nothing(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside one key of weight 1, 511 of 1/700 are less than half a step of a byte each, and together two fifths."""
    heads, size, rows, pairs = SHAPES[shape]
    generator = torch.Generator().manual_seed(0)
    shared = value_only(size, pairs) if pairs else None
    keys, values = torch.zeros(heads, 512, size), 1 + 0.2 * torch.randn(heads, 512, size, generator=generator)
    query = torch.zeros(heads, rows, size)
    free = 0 if shared is None else int(shared.rest[0])
    query[..., free] = 1
    keys[:, 77, free] = math.log(700)
    if shared is not None:  # there keys are values: only the strong one has the queries' dimension
        values[..., free] = 0
        values[:, 77, free] = math.log(700) / shared.key_norm[free]
    layer = LayerFormat(heads, size, "4", shared)
    pages = [layer.encode(keys[:, i : i + 128], values[:, i : i + 128]) for i in range(0, 512, 128)]
    expected = compute("reference", monkeypatch, query, pages, layer)
    for body in bodies():
        assert error(compute(body, monkeypatch, query, pages, layer).out, expected.out) < LIMIT, body


@pytest.mark.parametrize("shape", ["Gemma 4 E4B", "Gemma 4 31B"])
def test_threads_only_change_the_order_of_sums(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Splits start at whole chunks of pages, and rotary queries at the right angle."""
    inputs = data(shape, "4", pages=37)
    one = {body: compute(body, monkeypatch, *inputs) for body in bodies()}
    torch.set_num_threads(3)
    try:
        for body, expected in one.items():
            got = compute(body, monkeypatch, *inputs)
            assert error(got.out, expected.out) < 2e-3
            assert (got.lse - expected.lse).abs().max() < 1e-3
    finally:
        torch.set_num_threads(1)


def test_a_query_has_the_same_result_alone_and_among_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """However a prompt is cut, a position's queries go through the same arithmetic: each alone decides whether it needs
    its second bytes, as every other one does here."""
    query, pages, layer = data("odd groups, small rotary part", "3.5", pages=5)
    query[:, 1::2] *= 6
    for body in bodies():
        together = compute(body, monkeypatch, query, pages, layer)
        for row in (0, 7, 8, 12):
            alone = compute(body, monkeypatch, query[:, row : row + 1], pages, layer)
            assert error(alone.out[:, 0], together.out[:, row]) < 1e-4


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A machine without a compiler on which nothing was compiled."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv(VARIABLE, raising=False)
    native._load.cache_clear()
    yield monkeypatch
    native._load.cache_clear()


def test_without_a_compiler_pytorch_does_it(bare: pytest.MonkeyPatch) -> None:
    """And `g4agent doctor` says so, and what would help."""
    assert native.kernel() is None
    finding = native.examine()
    assert finding.status == "warning"
    assert "PyTorch" in finding.detail and "compiler" in finding.hint
    query, pages, layer = data("Gemma 3 270M", "4", pages=2, token_order=True)
    assert as_read_here(replace(layer, token_order=False), query.device).token_order
    inputs = query, pages, layer
    assert torch.equal(compute("auto", bare, *inputs).out, compute("torch", bare, *inputs).out)


def test_a_kernel_asked_for_by_name_is_no_wish(bare: pytest.MonkeyPatch) -> None:
    """Silence would let a benchmark measure the wrong thing."""
    bare.setenv(VARIABLE, "portable")
    with pytest.raises(ConfigError, match="cannot be compiled"):
        native.kernel()
    bare.setenv(VARIABLE, "sse9")
    with pytest.raises(ConfigError, match="no kernel"):
        native.kernel()


def test_a_compiler_that_fails_is_none(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An install must not break where headers are missing."""
    program = tmp_path / "c++"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    assert native.kernel() is None
    assert not list(tmp_path.rglob("*.so"))


def test_doctor_names_the_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert f"{available()[-1]} kernel" in native.examine().detail
