"""A folder on the host as what a new session's workspace holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from g4agent.errors import ConfigError

if TYPE_CHECKING:
    from g4agent.session import Workspace


def folder_workspace(folder: Path) -> Workspace:
    """All regular files below `folder`; links are not followed."""

    def files(seed: int) -> dict[str, bytes]:
        if not folder.is_dir():
            raise ConfigError(f"the workspace folder {folder} does not exist")
        found = (p for p in sorted(folder.rglob("*")) if p.is_file() and not p.is_symlink())
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}

    return files
