"""A tool pack is a package whose entry point in the group `g4agent.tools` names a function that returns its tools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from g4agent.tools import Tool


class ToolPack(Protocol):
    """What the entry point loads to: called without arguments, it gives the pack's tools."""

    def __call__(self) -> Sequence[Tool]: ...
