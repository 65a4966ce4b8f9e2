"""Tools for working on a folder of code: list, read, edit, run the tests. They run in the sandbox, in its workspace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from g4agent.tools import Tool


def tools(*, full: bool = False) -> Sequence[Tool]:
    """The pack's tools, in the order in which a model should read them.

    Args:
        full: Also those for models with more room: search, patches, whole files, commands, undo, git, and tests of
            projects in any language. nano knows the four others.
    """
    from g4agent_coding.files import edit_file, list_files, read_file
    from g4agent_coding.testing import run_tests

    if not full:
        return [list_files, read_file, edit_file, run_tests]
    from g4agent_coding.commits import git_commit, git_diff, git_log
    from g4agent_coding.finding import find_files
    from g4agent_coding.history import undo
    from g4agent_coding.patching import apply_patch
    from g4agent_coding.runners import run_project_tests
    from g4agent_coding.search import grep
    from g4agent_coding.wide import edit_text, read_lines, run_command, write_file

    reading = [list_files, find_files, grep, read_lines]
    changing = [edit_text, apply_patch, write_file, undo]
    return [*reading, *changing, run_command, run_project_tests, git_diff, git_log, git_commit]


def full_tools() -> Sequence[Tool]:
    """The full set, for what names a pack and gives no arguments."""
    return tools(full=True)


__all__ = ["full_tools", "tools"]
