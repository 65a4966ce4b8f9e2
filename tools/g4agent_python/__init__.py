"""A tool that runs Python in the sandbox and keeps the names between the calls of a session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from g4agent.tools import Tool


def tools() -> Sequence[Tool]:
    """The pack's one tool, `run_python`."""
    from g4agent_python.running import run_python

    return [run_python]


__all__ = ["tools"]
