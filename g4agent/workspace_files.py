"""Files of the workspace, for tools that run in it: where they are, and whether they may be read or changed.

The workspace is the current directory of every call. What a path leads to is checked after links are followed, so
neither dots nor links get out of it, and protected files (`ProtectedPaths`) stay closed.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

from g4agent.protected_paths import ProtectedPaths

P = ParamSpec("P")

PRIVATE = ".g4agent"
"""The folder in which tools keep what is theirs; it ignores itself in git and is no part of the project."""


class Refusal(Exception):
    """Something cannot be done; the message is meant for the model, which may ask otherwise."""


def answers_refusals(function: Callable[P, dict[str, Any]]) -> Callable[P, dict[str, Any]]:
    """Makes a Refusal an answer, `{"error": message}`: the model chose badly, the tool did not fail."""

    @wraps(function)
    def answer(*args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        try:
            return function(*args, **kwargs)
        except Refusal as refusal:
            return {"error": str(refusal)}

    return answer


def locate(path: str) -> Path:
    """The absolute path of something in the workspace, links followed; it need not exist.

    Raises:
        Refusal: It is outside, directly or through a link, or cannot be a path.
    """
    root = Path.cwd().resolve()
    try:
        found = (root / path).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise Refusal(f"bad path: {path}") from error
    if not found.is_relative_to(root):
        raise Refusal(f"{path} is outside the workspace")
    return found


def locate_folder(path: str) -> Path:
    """Like `locate`, for a folder that exists."""
    folder = locate(path)
    if folder.is_dir():
        return folder
    raise Refusal(f"{path} is a file" if folder.exists() else f"no folder {path}")


def locate_file(path: str, *, max_bytes: int | None = None, change: bool = False) -> Path:
    """Like `locate`, for a regular file that exists and may be read.

    Args:
        path: As the model wrote it.
        max_bytes: Refuse a larger file.
        change: Refuse also a file that may be read and not changed.

    Raises:
        Refusal: It is missing, a folder, a device or pipe, too large, or protected.
    """
    file = locate(path)
    try:
        status = file.stat()
    except (OSError, ValueError) as error:
        raise Refusal(f"no file {path}") from error
    if stat.S_ISDIR(status.st_mode):
        raise Refusal(f"{path} is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise Refusal(f"{path} is not a regular file")
    inside = file.relative_to(Path.cwd().resolve()).as_posix()
    protected = ProtectedPaths()
    if refusal := protected.unchangeable(inside) if change else protected.unreadable(inside):
        raise Refusal(refusal)
    if max_bytes is not None and status.st_size > max_bytes:
        raise Refusal(f"{path} is too large: {status.st_size} bytes, the limit is {max_bytes}")
    return file


def private_folder(name: str = "") -> Path:
    """A pack's own folder in the workspace, `.g4agent/NAME`, made at its first use; without a name, the one above."""
    own = Path.cwd() / PRIVATE
    folder = own / name
    folder.mkdir(parents=True, exist_ok=True)
    if not (own / ".gitignore").exists():
        (own / ".gitignore").write_text("*\n")
    return folder
