"""What a program with a defect is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Ending: TypeAlias = Literal["wrong", "recurses", "loops"]


@dataclass(frozen=True, slots=True)
class Defect:
    """A function that is wrong in one line, the edit that mends it, and what it must give then."""

    ending: Ending
    """What the defect leads to: a wrong answer or an error, a recursion without end, or a loop without end."""
    name: str
    code: str
    old: str
    """Text of the line that is wrong; occurs once."""
    new: str
    examples: tuple[str, ...]
    """Expressions that are true of the right function."""

    @property
    def source(self) -> str:
        return f"{self.code.strip()}\n"
