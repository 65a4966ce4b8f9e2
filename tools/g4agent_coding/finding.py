"""Finding files by a pattern of their names."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from g4agent.tools import tool
from g4agent.workspace_files import Refusal, answers_refusals, locate_folder
from g4agent_coding.shaping import Shape, shape
from g4agent_coding.workspace import walk

SHOWN = Shape(head_lines=100, tail_lines=1)


@tool(effect="idempotent")
@answers_refusals
def find_files(pattern: str, path: str = ".") -> dict[str, Any]:
    """Find files by name.

    Args:
        pattern: Such as *.py; with a slash, of the path: src/**/test_*.py.
        path: Folder.
    """
    if not pattern.strip("/"):
        raise Refusal("`pattern` is empty")
    parts = pattern.strip("/").split("/")
    if len(parts) == 1:
        parts = ["**", *parts]
    folder = locate_folder(path)
    depth = len(folder.relative_to(locate_folder(".")).parts)
    found = [file for file in walk(folder) if _matches(file.split("/")[depth:], parts)]
    return {"files": len(found), "paths": shape("\n".join(found), SHOWN) if found else ""}


def _matches(path: list[str], pattern: list[str]) -> bool:
    """Whether the path's parts match the pattern's; `**` stands for any number of folders."""
    reached = {0}  # how many of the pattern's parts may be used up
    for part in path:
        reached |= {at + 1 for at in reached if at < len(pattern) and pattern[at] == "**"}
        reached = {
            at if pattern[at] == "**" else at + 1
            for at in reached
            if at < len(pattern) and (pattern[at] == "**" or fnmatchcase(part, pattern[at]))
        }
    return len(pattern) in reached
