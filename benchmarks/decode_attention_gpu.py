"""Attention of one new token over a long compressed cache on a GPU, against PyTorch's over the same cache in bfloat16.

One layer, one token. The other side is every backend of `scaled_dot_product_attention` that takes the shape, with the
query heads that share a KV head packed as rows of one matrix; the best of them counts. `matmul` is two plain products
and a softmax. Each contender is captured as a CUDA graph, so launches from Python cost neither side anything; rounds
alternate, the L2 cache is emptied before each, and a figure is the median. `eager` is ours with its launches.

Before anything is timed, our output is compared with plain PyTorch on the CPU over the same pages, and pages encoded on
the GPU with those encoded on the CPU. Without a GPU it exits with 2: nothing was measured, so nothing was passed.

    python benchmarks/decode_attention_gpu.py [--tokens 131072] [--rounds 30] [--shapes E2B 31B] [--json] [--check]
    python benchmarks/decode_attention_gpu.py --compile    # no GPU needed: registers and shared memory of each kernel

31B keeps V only and rebuilds K; `31B K+V` is the same shape with both stored.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import torch
from _pages import whole_pages
from _report import Report, Target, arguments, publish
from decode_attention import DISTINCT_PAGES, PAGE_TOKENS, RATES, SINKS, Shape, value_only
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention as sdpa

from g4agent_torch.turboquant import gpu
from g4agent_torch.turboquant.attention import decode_attention
from g4agent_torch.turboquant.formats import LayerFormat, ValueOnly
from g4agent_torch.turboquant.gpu import ahead

TOKENS = (131_072, 262_144)
SHAPES = {"E2B": Shape(1, 8, 512), "31B": Shape(4, 8, 512, rotary_pairs=64), "31B K+V": Shape(4, 8, 512)}
BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
GOAL = 2.0
"""How many times as fast as the best SDPA backend ours has to be."""
LIMIT = 5e-3
"""Relative L2 error of ours, over the same decoded vectors."""
CHECKED_PAGES = 40
L2_BYTES = 256 << 20
"""More than any L2 cache."""

Run = Callable[[], object]


def layer_format(shape: Shape, rate: str, device: torch.device) -> LayerFormat:
    shared = None
    if shape.rotary_pairs:
        made = value_only(shape.size, shape.rotary_pairs)
        parts = (made.key_norm, made.frequencies, made.rotary, made.rest)
        shared = ValueOnly(*(part.to(device) for part in parts))
    return LayerFormat(shape.kv_heads, shape.size, rate, shared)


def random_pages(layer: LayerFormat, count: int, device: torch.device) -> list[torch.Tensor]:
    shape = (2, layer.heads, PAGE_TOKENS, layer.head_dim)
    distinct = [layer.encode(*torch.randn(shape, device=device)) for _ in range(min(count, DISTINCT_PAGES))]
    return [distinct[i % DISTINCT_PAGES].clone() for i in range(count)]


def disagreement(shape: Shape, rate: str, device: torch.device) -> str:
    """What differs between the device and plain PyTorch on the CPU; empty if nothing does."""
    here, there = layer_format(shape, rate, torch.device("cpu")), layer_format(shape, rate, device)
    vectors = torch.randn(2, shape.kv_heads, PAGE_TOKENS, shape.size)
    different = int((here.encode(*vectors) != there.encode(*vectors.to(device)).cpu()).sum())
    if different:
        return f"{different} bytes of a page differ"
    pages = random_pages(there, CHECKED_PAGES, device)
    query = torch.randn(shape.kv_heads, shape.group, shape.size) * shape.size**-0.5
    out = decode_attention(query.to(device), pages, there, SINKS).out.cpu()
    keys, values = here.decode([page.cpu() for page in pages], SINKS)
    expected = torch.softmax(query @ keys.transpose(1, 2), -1) @ values
    error = ((out - expected).norm() / expected.norm()).item()
    return "" if error < LIMIT else f"the output is off by {error:.2g}"


def with_backend(backend: SDPBackend, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> Run:
    def run() -> object:
        with sdpa_kernel(backend):
            return sdpa(query, keys, values, scale=1.0)

    return run


def contenders(shape: Shape, tokens: int, device: torch.device) -> dict[str, Run]:
    query = torch.randn(shape.kv_heads, shape.group, shape.size, device=device) * shape.size**-0.5
    keys, values = torch.randn(2, 1, shape.kv_heads, tokens, shape.size, device=device, dtype=torch.bfloat16)
    packed = query[None].bfloat16()
    runs = {name: with_backend(backend, packed, keys, values) for name, backend in BACKENDS.items()}
    runs["matmul"] = lambda: torch.softmax(packed @ keys.transpose(2, 3), -1) @ values
    for rate in RATES:
        layer = layer_format(shape, rate, device)
        pages = random_pages(layer, tokens // PAGE_TOKENS, device)
        runs[f"{rate} bits"] = lambda pages=pages, layer=layer: decode_attention(query, pages, layer, SINKS)
    return runs


def captured(run: Run) -> torch.cuda.CUDAGraph | None:
    """A contender as a graph; None if this GPU or shape has no such backend."""
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    try:
        with torch.cuda.stream(stream):
            for _ in range(3):
                run()
        stream.synchronize()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        return None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph


def timed(run: Run, flush: torch.Tensor) -> float:
    """Milliseconds of one run on an empty L2 cache."""
    flush.zero_()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def measure(shape: Shape, tokens: int, rounds: int, device: torch.device) -> dict[str, float]:
    """Median ms of each contender that runs; `eager` is that of the first rate, launched from Python."""
    runs = contenders(shape, tokens, device)
    graphs = {name: graph for name, run in runs.items() if (graph := captured(run)) is not None}
    flush = torch.empty(L2_BYTES, dtype=torch.uint8, device=device)
    times: dict[str, list[float]] = {name: [] for name in (*graphs, "eager")}
    for _ in range(rounds):
        for name, graph in graphs.items():
            times[name].append(timed(graph.replay, flush))
        times["eager"].append(timed(runs[f"{RATES[0]} bits"], flush))
    return {name: statistics.median(figures) for name, figures in times.items()}


def report(shapes: list[str], lengths: list[int], rounds: int, device: torch.device) -> Report:
    rows, targets = {}, []
    for name in shapes:
        for tokens in lengths:
            figures = measure(SHAPES[name], tokens, rounds, device)
            best = min(figures[backend] for backend in BACKENDS if backend in figures)
            row: dict[str, float | None] = {run: figures.get(run) for run in (*BACKENDS, "matmul")}
            for rate in RATES:
                share = figures[f"{rate} bits"] / best
                row |= {f"{rate} bits": figures[f"{rate} bits"], f"x at {rate}": 1 / share}
                targets.append(Target(f"{name}, {tokens} tokens, {rate} bits: ms over best SDPA's", share, 1 / GOAL))
            rows[f"{name}, {tokens / 1024:g}K tokens"] = row | {"eager": figures["eager"]}
    title = f"Attention of one token over a layer's cache, {torch.cuda.get_device_name(device)}"
    return Report(title, "GPU ms, median", rows, tuple(targets), ("g4agent", "torch", "triton"))


def compiled(shapes: list[str]) -> Report:
    """What the attention kernels take of a Hopper GPU; nothing is run."""
    rows: dict[str, dict[str, float | None]] = {}
    for name in shapes:
        for rate in (*RATES, "2.5"):
            layer = layer_format(SHAPES[name], rate, torch.device("cpu"))
            found = ahead.attention(layer, SHAPES[name].group)
            figures = {"registers": found.registers, "spilled B": found.spilled, "shared KiB": found.shared / 1024}
            rows[f"{name}, {rate} bits"] = dict(figures)
    return Report("Attention kernels compiled for sm_90", "per thread, per program", rows, (), ("g4agent", "triton"))


def obstacle() -> str:
    """Why nothing can be measured here; empty if it can."""
    if not torch.cuda.is_available():
        return "there is no CUDA GPU here, or this PyTorch is a build without CUDA"
    if not gpu.runs_on(torch.device("cuda")):
        return "the Triton kernels do not run here; see `g4agent doctor`"
    return ""


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--tokens", type=whole_pages, nargs="+", default=list(TOKENS), help="lengths, multiples of 128")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES), help="layers to measure")
    parser.add_argument("--rounds", type=int, default=30, help="runs per figure (default: 30)")
    parser.add_argument("--compile", action="store_true", help="only compile, which needs no GPU")
    options = parser.parse_args()
    if options.compile:
        try:
            version("triton")
        except PackageNotFoundError:
            print("Nothing was compiled: Triton is not installed.", file=sys.stderr)
            return 2
        return publish(compiled(options.shapes), options)
    if why := obstacle():
        print(f"Nothing was measured: {why}.", file=sys.stderr)
        return 2
    torch.manual_seed(0)
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # what is best for the other side
    device = torch.device("cuda", torch.cuda.current_device())
    for name in options.shapes:
        for rate in RATES:
            if wrong := disagreement(SHAPES[name], rate, device):
                print(f"Nothing was measured: {name} at {rate} bits is wrong: {wrong}.", file=sys.stderr)
                return 1
    with torch.inference_mode():
        return publish(report(options.shapes, options.tokens, options.rounds, device), options)


if __name__ == "__main__":
    sys.exit(main())
