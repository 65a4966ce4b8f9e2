"""The linear layers of a prompt's pass, with bfloat16 weights: torch's own products, and ours in float32.

The weights of one decoder layer of each model, random, for 256 tokens (a pass of the runtime on a CPU), one thread, all
in one process; each figure is the median of the rounds' processor times. `float32` has its weights in float32, which
takes twice the memory. Where oneDNN multiplies bfloat16 itself, the runtime leaves it to it, and there is no target.

    python benchmarks/many_tokens.py [--models E2B 12B] [--rounds 5] [--json] [--check]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from _report import Report, Target, arguments, publish
from torch import Tensor
from torch.nn import functional

from g4agent_torch.many_tokens import multiplies_slowly, widened

TOKENS = 256
LAYERS = {
    "E2B": ((1536, 2048), (1536, 256), (1536, 256), (2048, 1536), (1536, 6144), (1536, 6144), (6144, 1536)),
    "12B": ((3840, 4096), (3840, 2048), (3840, 2048), (4096, 3840), (3840, 15360), (3840, 15360), (15360, 3840)),
}
"""Inputs and outputs of a sliding layer's products: queries, keys, values, output, and the three of the MLP."""
MOST = 0.5
"""What ours may take of torch's time, where the runtime uses it."""


def products(weights: list[Tensor], inputs: list[Tensor], wide: bool) -> Callable[[], None]:
    def run() -> None:
        with widened(wide):
            for x, weight in zip(inputs, weights, strict=True):
                functional.linear(x, weight)

    return run


def measure(shapes: tuple[tuple[int, int], ...], rounds: int) -> dict[str, float]:
    """Median processor time of each way in ms."""
    weights = [torch.randn(size, count).T.contiguous().bfloat16() for size, count in shapes]
    inputs = [torch.randn(TOKENS, size).bfloat16() for size, _ in shapes]
    runs = {
        "bfloat16, torch": products(weights, inputs, False),
        "bfloat16, ours": products(weights, inputs, True),
        "float32": products([weight.float() for weight in weights], [x.float() for x in inputs], False),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            before = time.thread_time()
            run()
            times[name].append(1000 * (time.thread_time() - before))
    return {name: statistics.median(figures) for name, figures in times.items()}


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="runs per figure (default: 5)")
    parser.add_argument("--models", nargs="+", choices=LAYERS, default=list(LAYERS), help="whose layers")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    rows, targets = {}, []
    for name in options.models:
        figures = measure(LAYERS[name], options.rounds)
        share = figures["bfloat16, ours"] / figures["bfloat16, torch"]
        rows[name] = {**figures, "torch over ours": 1 / share}
        if multiplies_slowly(torch.device("cpu"), torch.bfloat16):
            targets.append(Target(f"{name}: ours over torch's", share, MOST))
    title = f"Products of one layer for {TOKENS} tokens"
    return publish(Report(title, "CPU ms, 1 thread", rows, tuple(targets), ("g4agent", "torch")), options)


if __name__ == "__main__":
    sys.exit(main())
