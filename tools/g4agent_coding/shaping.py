"""Long outputs of the pack's tools: head, tail, and a file in the workspace that has all of it."""

from __future__ import annotations

from g4agent import shaping
from g4agent.shaping import Shape
from g4agent_coding.private import keep_output

__all__ = ["Shape", "shape"]

OUTPUT = Shape()


def shape(text: str, limits: Shape = OUTPUT) -> str:
    """`g4agent.shaping.shape`, with the path under which `read_file` and `grep` find the whole text."""
    return shaping.shape(text, limits, keep_output)
