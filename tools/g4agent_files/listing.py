"""What documents there are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from g4agent.protected_paths import ProtectedPaths
from g4agent.tools import tool
from g4agent.workspace_files import answers_refusals, locate_folder
from g4agent_files.shaping import clean

MAX_LISTED = 200
"""Most files in one listing."""
SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules"})
"""Not listed, and neither is any folder whose name begins with a dot."""


@tool(effect="pure", untrusted=True)
@answers_refusals
def list_documents(path: str = ".") -> dict[str, Any]:
    """List files with their sizes in bytes.

    Args:
        path: Folder.
    """
    files = list(islice(_files(locate_folder(path)), MAX_LISTED + 1))
    listing: dict[str, Any] = {"files": files[:MAX_LISTED]}
    if len(files) > MAX_LISTED:
        listing["note"] = f"only the first {MAX_LISTED}: list a folder"
    return listing


def _files(folder: Path) -> Iterator[dict[str, Any]]:
    """The readable files below a folder, sorted within each folder; links are not followed."""
    root = Path.cwd().resolve()
    protected = ProtectedPaths()
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in SKIPPED_FOLDERS and not name.startswith("."))
        for name in sorted(names):
            file = Path(parent) / name
            inside = file.relative_to(root).as_posix()
            if protected.unreadable(inside) is None:
                yield {"path": clean(inside), "bytes": file.lstat().st_size}
