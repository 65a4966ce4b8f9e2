"""An argument that benchmarks of paged caches share; not in `_report`, which boxes without g4agent_torch import."""

from __future__ import annotations

import argparse

from g4agent_torch.memory import PAGE_TOKENS


def whole_pages(text: str) -> int:
    """An argument that is a number of tokens, or of vectors: a multiple of 128."""
    tokens = int(text)
    if tokens <= 0 or tokens % PAGE_TOKENS:
        raise argparse.ArgumentTypeError(f"{tokens} is no multiple of {PAGE_TOKENS}")
    return tokens
