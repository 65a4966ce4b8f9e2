"""Tools for working on a folder of code: list, read, edit, run the tests. They run in the sandbox, in its workspace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from g4agent.tools import Tool


def tools() -> Sequence[Tool]:
    """The pack's tools, in the order in which a model should read them."""
    from g4agent_coding.files import edit_file, list_files, read_file
    from g4agent_coding.testing import run_tests

    return [list_files, read_file, edit_file, run_tests]


__all__ = ["tools"]
