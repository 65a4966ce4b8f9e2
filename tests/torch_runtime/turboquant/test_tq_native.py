"""The native kernel: every body of it against plain PyTorch, and what happens where it cannot be had."""

from __future__ import annotations

import ctypes
import math
import re
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
from g4agent_torch.turboquant import compiling, native, native_attention, native_encoding, reference_attention
from g4agent_torch.turboquant.attention import Partial, as_read_here, decode_attention
from g4agent_torch.turboquant.cache import SINKS
from g4agent_torch.turboquant.codec import RATES, Codec, Scale, codec
from g4agent_torch.turboquant.formats import LayerFormat, ValueOnly
from g4agent_torch.turboquant.layout import Order
from g4agent_torch.turboquant.native import BODIES, VARIABLE, Call, Kernel

torch.set_num_threads(1)
LIMIT = 0.03
"""What integers may add to the error, relative L2."""
MEASURED = {1: {"4": 0.017, "3.5": 0.018, "2.5": 0.021}, 4: {"4": 0.025, "3.5": 0.025, "2.5": 0.033}}
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
    """Those that run here, and with AVX2 the one for AVX-512, which `compute` emulates where the processor lacks it."""
    return list(BODIES) if "avx2" in available() else available()


@cache
def emulated() -> Kernel:
    """The kernel with `emulated_avx512.h` in the place of `cpp/avx512.h`: what lies above runs as it is."""
    with tempfile.TemporaryDirectory() as folder:
        sources = shutil.copytree(compiling.SOURCES, Path(folder, "cpp"))
        shutil.copy(Path(__file__).with_name("emulated_avx512.h"), sources / "avx512.h")
        program, file = compiling.compiler(), Path(folder, "kernel.so")
        assert program is not None
        flags = [flag for flag in compiling.FLAGS if flag != "-O3"]
        command = [program, *flags, "-O1", str(sources / "kernel.cpp"), "-o", str(file), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=compiling.COMPILE_SECONDS)
        assert done.returncode == 0, done.stderr
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


def biased_errors(query: Tensor, pages: list[Tensor], layer: LayerFormat, bias: Tensor) -> dict[str, float]:
    """Errors of all bodies where something is added to scores, [tokens]."""
    loaded, bias = native._load("auto"), bias.expand(*query.shape[:2], -1).contiguous()
    assert loaded is not None
    expected = reference_attention.decode_attention(query, pages, layer, SINKS, bias).out
    kernels = {body: replace(loaded, body=body) if body in available() else emulated() for body in bodies()}
    found = {b: native_attention.decode_attention(k, query, pages, layer, SINKS, bias).out for b, k in kernels.items()}
    return {body: error(out, expected) for body, out in found.items()}


def hard(generator: torch.Generator, size: int) -> Tensor:
    """Vectors [3, 128, size] of very different lengths; among them zero, one large coordinate, and subnormal ones."""
    x = torch.randn(3, 128, size, generator=generator) * torch.randn(3, 128, 1, generator=generator).exp()
    x[0, 5], x[1, 8, 1:], x[1, 7], x[2, 9], x[2, 10] = 0, 0, x[1, 7] * 1e6, x[2, 9] * 1e-9, x[2, 10] * 1e-22
    x[0, 6], x[0, 6, :2] = 0, 1e-20  # rotated, half of it is zero, and its length is too small to divide by
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
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_what_is_no_number_spoils_its_own_vector_only(rate: str, wrong: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches refuse it; a codec must at least not look for its code beyond a table."""
    x = torch.randn(1, 128, 64, generator=torch.Generator().manual_seed(0))
    made, others = codec(64, rate, Scale.NORM, Order.KEY), torch.arange(128) != 7
    expected = made.decode(made.encode(x), 128)[:, others]
    x[0, 7, 3] = wrong
    for body in (*available(), "torch"):
        monkeypatch.setenv(VARIABLE, body)
        assert torch.equal(made.decode(native_encoding.encode(made, x), 128)[:, others], expected), body


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


@pytest.mark.parametrize("steps", [0.36, 1.6, 2.45, 3.5])
@pytest.mark.parametrize("shape", ["Gemma 4 E4B", "Gemma 4 31B"])
def test_many_small_weights_are_not_rounded_the_same_way(
    shape: str, steps: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside one key of weight 1, 511 of a few steps of a byte each are together as much or more: to nothing, or to the
    nearest step, all would be rounded alike."""
    heads, size, rows, pairs = SHAPES[shape]
    generator = torch.Generator().manual_seed(0)
    shared = value_only(size, pairs) if pairs else None
    keys, values = torch.zeros(heads, 512, size), 1 + 0.2 * torch.randn(heads, 512, size, generator=generator)
    query = torch.zeros(heads, rows, size)
    free = 0 if shared is None else int(shared.rest[0])
    query[..., free] = 1
    strong = math.log(255 / steps)
    keys[:, 77, free] = strong
    if shared is not None:  # there keys are values: only the strong one has the queries' dimension
        values[..., free] = 0
        values[:, 77, free] = strong / shared.key_norm[free]
    layer = LayerFormat(heads, size, "4", shared)
    pages = [layer.encode(keys[:, i : i + 128], values[:, i : i + 128]) for i in range(0, 512, 128)]
    expected = compute("reference", monkeypatch, query, pages, layer)
    for body in bodies():
        assert error(compute(body, monkeypatch, query, pages, layer).out, expected.out) < 0.01, body


@pytest.mark.parametrize(("shape", "pair"), [("Gemma 4 E4B", (6, 7)), ("Gemma 4 31B", (5, 37))])
def test_two_strong_neighbours_do_not_run_over(shape: str, pair: tuple[int, int]) -> None:
    """With AVX2 the products of two bytes are added in 16 bits: neighbours in VALUE order, and in KEY order."""
    heads, size, rows, pairs = SHAPES[shape]
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(heads, 128, size, generator=generator)
    values[:, pair[1]] = values[:, pair[0]]
    layer = LayerFormat(heads, size, "4", value_only(size, pairs) if pairs else None)
    bias = torch.full((128,), -20.0)
    bias[list(pair)] = 0
    errors = biased_errors(torch.zeros(heads, rows, size), [layer.encode(values, values)], layer, bias)
    assert max(errors.values()) < 0.01, errors


def one_hot(keys: Tensor) -> tuple[Tensor, list[Tensor], LayerFormat]:
    """Scores [pages · 128] by a query of one dimension, whose bytes are all of one size."""
    size, generator = 64, torch.Generator().manual_seed(0)
    query, vectors = torch.zeros(1, 4, size), torch.zeros(1, len(keys), size)
    query[..., 0], vectors[..., 0] = 1, keys
    values, layer = 1 + torch.randn(1, len(keys), size, generator=generator), LayerFormat(1, size, "4")
    return (
        query,
        [layer.encode(vectors[:, i : i + 128], values[:, i : i + 128]) for i in range(0, len(keys), 128)],
        layer,
    )


def test_pages_of_many_weaker_keys_matter() -> None:
    """One key, and 511 that are weaker by as much as they are more: all get the second bytes of the query."""
    keys = torch.full((1024,), 40 - math.log(511))
    keys[5], keys[512:] = 40, 0
    errors = biased_errors(*one_hot(keys), torch.zeros(1024))
    assert max(errors.values()) < 0.02, errors


def test_bytes_of_one_size_are_not_all_rounded_the_same_way() -> None:
    """Two groups of keys far apart, which a bias puts level: half a step of the query's bytes would tip them."""
    keys = torch.full((256,), 20.0)
    keys[128:] = -20
    query, pages, layer = one_hot(keys)
    halves = [reference_attention.decode_attention(query, pages[i : i + 1], layer, SINKS).lse[0, 0] for i in (0, 1)]
    errors = biased_errors(query, pages, layer, torch.cat([torch.zeros(128), (halves[0] - halves[1]).expand(128)]))
    assert max(errors.values()) < 0.02, errors


@pytest.mark.parametrize(("shape", "at"), [("Gemma 3 270M", 3), ("Gemma 4 31B", 3), ("Gemma 4 31B", 100)])
def test_a_query_that_is_no_number_has_no_result(shape: str, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes cannot say it: the output would be finite, and wrong. Of 31B, dimension 3 is rotary."""
    query, pages, layer = data(shape, "4", pages=2)
    query[:, 0, at], query[:, 1, at] = torch.nan, torch.inf
    for body in bodies():
        out = compute(body, monkeypatch, query, pages, layer).out
        assert out[:, :2].isnan().all() and out[:, 2:].isfinite().all(), body


def test_the_emulation_has_the_constants_of_what_it_stands_for() -> None:
    files = compiling.SOURCES / "avx512.h", Path(__file__).with_name("emulated_avx512.h")
    real, emulation = (
        dict(re.findall(r"^constexpr int (\w+) = (\d+);", file.read_text(), re.MULTILINE)) for file in files
    )
    assert real and real == emulation


@pytest.mark.parametrize("spread", [1, 4])
@pytest.mark.parametrize("shape", ["Gemma 4 E4B", "Gemma 4 31B"])
def test_threads_change_next_to_nothing(shape: str, spread: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Splits start at whole chunks of pages, and rotary queries at the right angle. What differs is the order of sums,
    and which pages could matter when they were read."""
    inputs = data(shape, "4", 37, spread)
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
            assert torch.equal(alone.out[:, 0], together.out[:, row]), body


@pytest.mark.parametrize("shape", ["odd groups, small rotary part", "SmolLM2"])
def test_any_number_of_queries_shares_passes(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes are made for eight, four or one; what is missing in one must change nothing, and write nowhere."""
    query, pages, layer = data(shape, "4", pages=5)
    query = query.repeat(1, 5, 1)[:, :13].contiguous()
    bias = torch.randn(*query.shape[:2], 5 * 128, generator=torch.Generator().manual_seed(1))
    loaded = native._load("auto")
    assert loaded is not None
    for body in bodies():
        kernel = replace(loaded, body=body) if body in available() else emulated()
        whole = native_attention.decode_attention(kernel, query, pages, layer, SINKS, bias)
        for count in range(1, 13):
            some = query[:, :count].contiguous(), pages, layer, SINKS, bias[:, :count].contiguous()
            out, lse = native_attention.decode_attention(kernel, *some)
            assert torch.equal(out, whole.out[:, :count]) and torch.equal(lse, whole.lse[:, :count]), (body, count)


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


def test_a_library_that_cannot_be_loaded_is_none(bare: pytest.MonkeyPatch) -> None:
    """Another machine's in a shared home: sessions go on without, doctor says why, and who asks by name is told."""
    file = compiling.cached_file()
    file.parent.mkdir(parents=True)
    file.write_bytes(b"not a library")
    assert native.kernel() is None
    finding = native.examine()
    assert finding.status == "warning" and str(file) in finding.detail and "PyTorch" in finding.detail
    bare.setenv(VARIABLE, "portable")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        native.kernel()


def test_doctor_names_the_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert f"{available()[-1]} kernel" in native.examine().detail
