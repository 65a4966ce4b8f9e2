"""Tools for working on a folder of code: list, read, edit, run the tests. They run in the sandbox, in its workspace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from g4agent.tools import Tool


def tools(*, full: bool = False) -> Sequence[Tool]:
    """The pack's tools, in the order in which a model should read them.

    Args:
        full: Also those for models with more room: files by lines, whole files, commands. nano knows the four others.
    """
    from g4agent_coding.files import edit_file, list_files, read_file
    from g4agent_coding.testing import run_tests

    if not full:
        return [list_files, read_file, edit_file, run_tests]
    from g4agent_coding.search import grep
    from g4agent_coding.wide import read_lines, run_command, write_file

    return [list_files, grep, read_lines, edit_file, write_file, run_command, run_tests]


__all__ = ["tools"]
