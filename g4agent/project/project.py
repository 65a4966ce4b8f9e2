"""Reading a project, and the copy of it that a run works on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from g4agent.errors import ConfigError
from g4agent.project.entries import LINK, Entries, Entry, read_archive, read_entry, write_archive
from g4agent.project.git import Scratch, is_repository, names, run_git
from g4agent.project.replace import recover
from g4agent.protected_paths import ProtectedPaths

SKIPPED_FOLDERS = frozenset(
    ("node_modules", "__pycache__", ".venv", "venv", ".tox", ".mypy_cache", ".pytest_cache", ".ruff_cache")
)
GIT_CONFIG = b"[core]\n\trepositoryformatversion = 0\n\tbare = false\n"


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

    def files(self) -> dict[str, bytes]:
        """The regular files by path."""
        return {path: entry.data for path, entry in self.entries.items() if entry.mode != LINK}

    def archive(self) -> bytes:
        """The copy as a box restores it, with links and executable files.

        A copy from a git repository has a repository of its own, in which the project as it was is the only commit.
        """
        entries = dict(self.entries)
        if self.in_repository:
            with Scratch() as scratch:
                scratch.commit((self.entries, "The project as the run found it"))
                scratch.git("read-tree", "HEAD")
                for file in sorted(scratch.folder.rglob("*")):
                    if file.is_file():
                        entries[f".git/{file.relative_to(scratch.folder).as_posix()}"] = Entry(file.read_bytes())
            entries[".git/config"] = Entry(GIT_CONFIG)
        return write_archive(entries)

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
