"""A dialogue in the native format, as text pieces with a mark on those that the model itself writes.

Everything is rendered by the product (`g4agent.gemma4.render`), so the data cannot drift from what a session sends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from g4agent.gemma4 import render
from g4agent.gemma4.tokens import Segment, to_text
from g4agent.tools import Tool

Piece = tuple[str, bool]
"""Text, and whether the model writes it (and so learns from it)."""


@cache
def _tool_text(tool: Tool) -> str:
    return declaration(tool.name, tool.description, dict(tool.declaration.parameters))


def declare(tools: Sequence[Tool]) -> list[str]:
    """The declarations of the product's tools."""
    return [_tool_text(tool) for tool in tools]


def declaration(name: str, description: str, parameters: dict[str, Any]) -> str:
    """One declaration, from an already normalised object schema."""
    return _text(render.declaration(name, description, parameters))


def _text(segments: list[Segment]) -> str:
    return to_text(segments)


@dataclass(slots=True)
class Dialogue:
    """Grows turn by turn. With thinking on it has one turn: earlier ones would have lost their thoughts."""

    system: str
    declarations: list[str]
    thinking: bool
    pieces: list[Piece] = field(default_factory=list)

    def __post_init__(self) -> None:
        think = "<|think|>\n" if self.thinking else ""
        text = f"{think}{self.system.strip()}{''.join(self.declarations)}"
        self.pieces.append((f"<bos><|turn>system\n{text}<turn|>\n" if text else "<bos>", False))

    def user(self, text: str) -> None:
        """The next user message; opens the model's turn."""
        self.pieces.append((f"<|turn>user\n{text.strip()}<turn|>\n<|turn>model\n", False))

    def call(self, thought: str, *calls: tuple[str, dict[str, Any]]) -> None:
        """The model calls tools."""
        self._thought(thought)
        text = "".join(_text(render.tool_call(name, arguments)) for name, arguments in calls)
        self.pieces.append((text + "<|tool_response>", True))

    def results(self, *results: tuple[str, dict[str, Any]]) -> None:
        """What the tools gave."""
        self.pieces.append((_text(render.tool_responses(results, opener_present=True, thinking=self.thinking)), False))

    def final(self, thought: str, text: str) -> None:
        """The model's answer."""
        self._thought(thought)
        self.pieces.append((text + "<turn|>", True))
        self.pieces.append(("\n", False))

    def _thought(self, thought: str) -> None:
        if self.thinking:
            opened = self.pieces[-1][0].endswith("<|channel>thought\n")
            self.pieces.append((("" if opened else "<|channel>thought\n") + thought + "\n<channel|>", True))

    def text(self) -> str:
        """The whole dialogue."""
        return "".join(text for text, _ in self.pieces)
