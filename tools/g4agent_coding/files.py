"""Listing, reading and editing files."""

from __future__ import annotations

from itertools import islice
from typing import Any

from g4agent.tools import tool
from g4agent_coding.workspace import CodingError, answers_refusals, locate_folder, read_text, walk, write_text

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
    text = read_text(path)
    if "\r\n" in text:  # the model has read, and writes, plain line feeds
        old, new = (part.replace("\r\n", "\n").replace("\n", "\r\n") for part in (old, new))
    if not old:
        raise CodingError("`old` is empty")
    if old == new:
        raise CodingError("`old` and `new` are the same")
    match text.count(old):
        case 0 if "".join(old.split()) in "".join(text.split()):
            raise CodingError("`old` not found: its spaces or line breaks differ")
        case 0:
            raise CodingError("`old` not found")
        case 1:
            write_text(path, text.replace(old, new))
            return {"path": path, "replaced": 1}
        case times:
            raise CodingError(f"`old` occurs {times} times: give more context")
