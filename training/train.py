"""Trains nano: `python -m training.train --minutes 60`. Resumes from its last checkpoint, data position included.

Muon (orthogonalised momentum) moves the matrices, AdamW the embeddings and norms; the learning rate warms up, stays,
and decays over the last part of the time. The loss is on the model's own words only, and logits are made only there.
An average of the weights is exported every few minutes, so that there is always something to use.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Gemma4ForCausalLM

from training import export
from training.data import LEARN, RUNS, batches
from training.model import BLOCK_ATTENTION, Shape, build

ROWS = 2
"""Rows of 2,048 tokens per step."""
MUON_RATE, ADAM_RATE = 0.02, 3e-3
WARM_UP = 40
DECAY = 0.4
"""Share of the time in which the learning rate falls."""
AVERAGE = 0.98
"""Momentum of the exported average of the weights."""


class Muon:
    """Nesterov momentum, orthogonalised by five Newton-Schulz steps; matrices of one shape go together."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.groups: dict[torch.Size, list[nn.Parameter]] = {}
        for parameter in parameters:
            self.groups.setdefault(parameter.shape, []).append(parameter)
        self.momentum = {shape: torch.zeros(len(group), *shape) for shape, group in self.groups.items()}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update; every parameter needs a gradient."""
        for shape, group in self.groups.items():
            gradient = torch.stack([parameter.grad for parameter in group])  # type: ignore[misc]
            momentum = self.momentum[shape].mul_(0.95).add_(gradient)
            update = orthogonal(gradient.add_(momentum, alpha=0.95))
            scale = rate * max(1.0, shape[0] / shape[1]) ** 0.5
            for parameter, change in zip(group, update, strict=True):
                parameter.add_(change, alpha=-scale)


def orthogonal(batch: Tensor) -> Tensor:
    """Nearly the nearest semi-orthogonal matrices (Newton-Schulz, quintic), for a batch [N, rows, columns]."""
    x = batch / (batch.norm(dim=(1, 2), keepdim=True) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.mT if tall else x


def rate(step: int, progress: float) -> float:
    """Warm-up, plateau, linear decay to nearly nothing at the end of the time."""
    return min(1.0, (step + 1) / WARM_UP) * min(1.0, max(0.01, (1 - progress) / DECAY))


def main() -> None:
    """Data in a process of its own, then steps until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RUNS)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--start", type=Path, help="folder of weights to begin with, instead of random ones")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = subprocess.Popen(
        [sys.executable, "-m", "training.data", "--folder", str(arguments.out), "--seed", str(arguments.seed)]
    )
    try:
        train(arguments.out, arguments.minutes * 60, arguments.seed, arguments.start)
    finally:
        data.terminate()


def train(folder: Path, seconds: float, seed: int, start: Path | None) -> None:
    """The loop; `seconds` counts time spent in steps, over all resumptions."""
    shape = Shape()
    model = build(shape, seed)
    if start is not None:
        model.load_state_dict(Gemma4ForCausalLM.from_pretrained(start, dtype=torch.float32).state_dict())
    model.set_attn_implementation(BLOCK_ATTENTION)
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    chosen = set(map(id, matrices))
    muon = Muon(matrices)
    adam = torch.optim.AdamW(
        [p for p in model.parameters() if id(p) not in chosen], lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.0
    )
    step, spent, smooth = 0, 0.0, 0.0
    average = {name: value.clone() for name, value in model.state_dict().items()}
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        adam.load_state_dict(saved["adam"])
        muon.momentum = saved["muon"]
        average, step, spent, smooth = saved["average"], saved["step"], saved["spent"], saved["smooth"]
    body = torch.compile(lambda ids: model.model(input_ids=ids, use_cache=False).last_hidden_state, dynamic=False)
    last_save = spent
    for rows in batches(folder, ROWS, step):
        began = time.monotonic()
        loss = learn(model, body, torch.from_numpy(rows.astype("int64")))
        factor = rate(step, spent / seconds)
        adam.param_groups[0]["lr"] = ADAM_RATE * factor
        nn.utils.clip_grad_norm_(adam.param_groups[0]["params"], 1.0)
        adam.step()
        muon.step(MUON_RATE * factor)
        model.zero_grad()
        keep = min(AVERAGE, (step + 1) / (step + 20))
        for name, value in model.state_dict().items():
            average[name].lerp_(value, 1 - keep)
        smooth = loss if step == 0 else 0.97 * smooth + 0.03 * loss
        if step > 1:
            spent += time.monotonic() - began
        step += 1
        if step % 20 == 0:
            tokens = step * rows.size
            print(
                f"step {step} {tokens / 1e6:.2f}M tokens {spent / 60:.1f} min loss {smooth:.4f}"
                f" {rows.size * 20 and tokens / max(spent, 1):.0f} tokens/s rate {factor:.2f}",
                flush=True,
            )
        if spent - last_save > 150 or spent > seconds:
            last_save = spent
            torch.save(
                {
                    "model": model.state_dict(),
                    "adam": adam.state_dict(),
                    "muon": muon.momentum,
                    "average": average,
                    "step": step,
                    "spent": spent,
                    "smooth": smooth,
                },
                checkpoint,
            )
            export.export(shape, average, folder, folder / "export")
        if spent > seconds:
            return


def learn(model: Gemma4ForCausalLM, body: object, rows: Tensor) -> float:
    """Forward and backward of one batch; leaves gradients and returns the loss."""
    ids, said = rows % LEARN, rows >= LEARN
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = body(ids)  # type: ignore[operator]
        logits = hidden[:, :-1][said[:, 1:]] @ model.lm_head.weight.T
    logits = 30.0 * torch.tanh(logits.float() / 30.0)
    loss = F.cross_entropy(logits, ids[:, 1:][said[:, 1:]])
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item()


if __name__ == "__main__":
    main()
