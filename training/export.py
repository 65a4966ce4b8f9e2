"""Writes a trained nano as a folder that transformers and g4agent load: bf16 weights, tokenizer, generation config."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from torch import Tensor
from transformers import Gemma4ForCausalLM, GenerationConfig

from training.data import RUNS
from training.model import Shape, config

NANO = Path(__file__).parents[1] / "runtimes" / "g4agent_torch" / "nano"
STOPS = [1, 106, 50]


def export(shape: Shape, weights: dict[str, Tensor], tokenizer: Path, out: Path) -> None:
    """Saves weights in bf16 (tied ones once) with the tokenizer's files beside them."""
    model = Gemma4ForCausalLM(config(shape))
    model.load_state_dict(weights)
    model.to(torch.bfloat16)
    model.generation_config = GenerationConfig(bos_token_id=2, pad_token_id=0, eos_token_id=STOPS, do_sample=False)
    model.save_pretrained(out)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer / name, out / name)


def main() -> None:
    """Copies the last export of a run to the shelf."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=RUNS)
    parser.add_argument("--out", type=Path, default=NANO)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for file in sorted((arguments.run / "export").iterdir()):
        shutil.copyfile(file, arguments.out / file.name)


if __name__ == "__main__":
    main()
