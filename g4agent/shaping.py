"""Long output in a small context: its head and its tail, and a handle to the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

MAX_LINE_CHARS = 300


@dataclass(frozen=True, slots=True)
class Shape:
    """How much of an output is shown."""

    head_lines: int = 10
    tail_lines: int = 30
    chars: int = 4000
    """Of head and tail together."""


def shape(text: str, limits: Shape, keep: Callable[[str], str]) -> str:
    """The text, if it is short; else its head, a line that says what is missing and where it is, and its tail.

    Args:
        text: The output.
        limits: How much of it is shown.
        keep: Stores the whole text, and says how to read it; called only where something is left out.
    """
    lines = text.rstrip("\n").split("\n")
    if len(lines) <= limits.head_lines + limits.tail_lines and len(text) <= limits.chars:
        return "\n".join(map(_cut, lines))
    tail_chars = limits.chars * limits.tail_lines // (limits.head_lines + limits.tail_lines)
    head = _fitting(lines[: limits.head_lines], limits.chars - tail_chars)
    tail = _fitting(lines[len(head) :][::-1][: limits.tail_lines], tail_chars)[::-1]
    missing = len(lines) - len(head) - len(tail)
    if not missing:  # only long lines were cut
        return "\n".join([*head, *tail, f"[long lines were cut; in full: {keep(text)}]"])
    return "\n".join([*head, f"[{missing} lines left out; all {len(lines)} lines: {keep(text)}]", *tail])


def _fitting(lines: list[str], chars: int) -> list[str]:
    kept: list[str] = []
    for line in map(_cut, lines):
        chars -= len(line) + 1
        if chars < 0:
            break
        kept.append(line)
    return kept


def _cut(line: str) -> str:
    return line if len(line) <= MAX_LINE_CHARS else f"{line[:MAX_LINE_CHARS]} [cut, {len(line)} characters]"
