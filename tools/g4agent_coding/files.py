"""Listing, reading and editing files."""

from __future__ import annotations

from itertools import islice
from typing import Any

from g4agent.tools import tool
from g4agent.workspace_files import answers_refusals, locate_folder
from g4agent_coding.matching import replace
from g4agent_coding.private import require_changeable
from g4agent_coding.workspace import read_text, walk, write_text

MAX_LISTED = 200
"""Most files in one listing."""


@tool(effect="pure")
@answers_refusals
def list_files(path: str = ".") -> dict[str, Any]:
    """List files.

    Args:
        path: Folder.
    """
    files = list(islice(walk(locate_folder(path)), MAX_LISTED + 1))
    if len(files) > MAX_LISTED:
        return {"files": files[:MAX_LISTED], "note": f"only the first {MAX_LISTED}: list a folder"}
    return {"files": files}


@tool(effect="pure")
@answers_refusals
def read_file(path: str) -> dict[str, Any]:
    """Read a text file.

    Args:
        path: File.
    """
    return {"text": read_text(path).replace("\r\n", "\n")}


@tool(effect="idempotent")
@answers_refusals
def edit_file(path: str, old: str, new: str) -> dict[str, Any]:
    """Replace text in a file.

    Args:
        path: File.
        old: Text to replace, occurs once.
        new: New text.
    """
    require_changeable(path)
    write_text(path, replace(read_text(path), old, new))
    return {"path": path, "replaced": 1}
