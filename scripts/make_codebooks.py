"""Computes the codebooks of the compressed KV cache: runtimes/g4agent_torch/turboquant/codebooks.json.

They are part of the page format: run this only together with a new format version. Some minutes on one core.

    python scripts/make_codebooks.py
"""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from statistics import NormalDist

import torch
from torch import Tensor

SCALAR_BITS, PAIR_BITS = range(1, 6), range(3, 8)
RESTARTS = 16
TARGET = Path(__file__).parents[1] / "runtimes/g4agent_torch/turboquant/codebooks.json"


def scalar(bits: int) -> list[float]:
    """The levels of the Lloyd-Max quantiser of N(0, 1), by fixed-point iteration on the exact integrals."""
    normal, count = NormalDist(), 1 << bits
    levels = [normal.inv_cdf((i + 0.5) / count) for i in range(count)]
    while True:
        edges = [-math.inf, *((a + b) / 2 for a, b in itertools.pairwise(levels)), math.inf]
        cells = list(itertools.pairwise(edges))
        better = [(pdf(a) - pdf(b)) / (normal.cdf(b) - normal.cdf(a)) for a, b in cells]
        if max(abs(a - b) for a, b in zip(levels, better, strict=True)) < 1e-12:
            return [round((better[i] - better[-1 - i]) / 2, 7) for i in range(count)]  # exactly odd
        levels = better


def pdf(x: float) -> float:
    return 0.0 if math.isinf(x) else math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def pair(bits: int) -> list[list[float]]:
    """2-D points for N(0, I): Lloyd's algorithm over a weighted grid, the best of several starts."""
    coarse, fine = grid(0.06), grid(0.025)
    starts = []
    for seed in range(RESTARTS):
        start = 1.35 * torch.randn(1 << bits, 2, generator=torch.Generator().manual_seed(seed))
        starts.append(lloyd(start, *coarse))
    points, _ = lloyd(min(starts, key=lambda start: start[1])[0], *fine)
    order = torch.argsort(torch.atan2(points[:, 1], points[:, 0]))
    return [[round(value, 5) for value in point] for point in points[order].tolist()]


def grid(step: float, radius: float = 5.6) -> tuple[Tensor, Tensor]:
    """Cell centres [n, 2] and their probabilities [n] under N(0, I)."""
    axis = torch.arange(-radius + step / 2, radius, step)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    weights = torch.exp(-points.square().sum(1) / 2)
    kept = weights > 1e-7
    return points[kept], weights[kept] / weights[kept].sum()


def lloyd(points: Tensor, samples: Tensor, weights: Tensor, rounds: int = 400) -> tuple[Tensor, float]:
    """Moves [k, 2] points to the centroids of their cells until that helps no more; returns them and the distortion."""
    last = math.inf
    for _ in range(rounds):
        nearest = torch.cat(
            [(part @ points.T - points.square().sum(1) / 2).argmax(1) for part in samples.split(20_000)]
        )
        mass = torch.zeros(len(points)).index_add_(0, nearest, weights)
        centroids = torch.zeros_like(points).index_add_(0, nearest, weights[:, None] * samples) / mass[:, None]
        points = torch.where(mass[:, None] > 0, centroids, points / 2)  # an empty cell starts anew, further in
        power = (weights * samples.square().sum(1)).sum() - (mass * points.square().sum(1)).sum()
        distortion = power.item() / 2
        if last - distortion < 1e-7 * distortion:
            break
        last = distortion
    return points, distortion


def main() -> None:
    books = {
        "scalar": {str(bits): [[level] for level in scalar(bits)] for bits in SCALAR_BITS},
        "pair": {str(bits): pair(bits) for bits in PAIR_BITS},
    }
    lines = json.dumps(books).replace("]], ", "]],\n ").replace('}, "', '},\n"')
    TARGET.write_text(lines + "\n")


if __name__ == "__main__":
    main()
