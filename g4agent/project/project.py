"""Reading a project, and the copy of it that a run works on."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from g4agent.errors import ConfigError
from g4agent.project.entries import Entries, Entry, read_archive, read_entry, write_archive
from g4agent.project.git import is_repository, names, run_git
from g4agent.project.history import own_repository
from g4agent.project.replace import recover
from g4agent.protected_paths import ProtectedPaths

SKIPPED_FOLDERS = frozenset(
    ("node_modules", "__pycache__", ".venv", "venv", ".tox", ".mypy_cache", ".pytest_cache", ".ruff_cache")
)
ABOUT, ARCHIVE = "project.json", "project.tar"


@dataclass(frozen=True, slots=True)
class Project:
    """A folder, and what of it the run gets."""

    folder: Path
    in_repository: bool
    entries: Entries

    @classmethod
    def read(cls, folder: Path) -> Project:
        """Reads what is to be copied: in a git repository what git knows or would add, else all files.

        Changes of an earlier run that were being taken over when the process was killed are taken back first.

        Raises:
            ConfigError: The folder is not there, or git is not.
        """
        folder = folder.resolve()
        if not folder.is_dir():
            raise ConfigError(f"the workspace {folder} is not a folder", hint="Name a folder or a git repository.")
        recover(folder)
        in_repository = is_repository(folder)
        paths = _known_to_git(folder) if in_repository else _below(folder)
        found = {path: entry for path in paths if is_copied(path) and (entry := read_entry(folder / path)) is not None}
        return cls(folder, in_repository, found)

    def save(self, folder: Path) -> None:
        """Writes down what was copied, for a later process that takes the changes over."""
        folder.mkdir(parents=True, exist_ok=True)
        about = {"folder": str(self.folder), "in_repository": self.in_repository}
        for name, data in ((ARCHIVE, write_archive(self.entries)), (ABOUT, json.dumps(about).encode())):
            part = folder / f"{name}.part"
            part.write_bytes(data)
            part.replace(folder / name)

    @classmethod
    def load(cls, folder: Path) -> Project | None:
        """What was saved there; None if nothing was.

        Raises:
            ConfigError: The project's folder is gone.
        """
        if not (folder / ABOUT).exists():
            return None
        about = json.loads((folder / ABOUT).read_text())
        place = Path(about["folder"])
        if not place.is_dir():
            raise ConfigError(f"the workspace {place} of this session is gone", hint="Put the folder back.")
        recover(place)
        return cls(place, about["in_repository"], read_archive((folder / ARCHIVE).read_bytes()))

    def archive(self) -> bytes:
        """The copy as a box restores it, with links and executable files.

        A copy from a git repository has a repository of its own; see `own_repository`.
        """
        own = own_repository(self.folder, self.entries) if self.in_repository else {}
        return write_archive({**self.entries, **own})

    def after(self, snapshot: bytes) -> dict[str, Entry]:
        """What the project became, from a snapshot of the workspace; without new files that git would ignore."""
        entries = {path: entry for path, entry in read_archive(snapshot).items() if is_copied(path)}
        new = [path for path in entries if path not in self.entries]
        if self.in_repository and new:
            command = ["check-ignore", "-z", "--no-index", "--stdin"]
            for path in names(run_git(command, self.folder, codes=(0, 1), stdin=os.fsencode("\0".join(new)))):
                del entries[path]
        return entries


def is_copied(path: str) -> bool:
    """Whether a path belongs to the copy."""
    return ProtectedPaths().unreadable(path) is None and not SKIPPED_FOLDERS & set(path.split("/"))


def _known_to_git(folder: Path) -> list[str]:
    listed = run_git(["ls-files", "-z", "--cached", "--others", "--exclude-standard"], folder)
    return sorted(set(names(listed)))


def _below(folder: Path) -> list[str]:
    paths = []
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS and name not in links]
        paths += [(Path(parent) / name).relative_to(folder).as_posix() for name in (*files, *links)]
    return sorted(paths)
