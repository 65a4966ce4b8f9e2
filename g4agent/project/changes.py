"""What a run changed in its copy of a project: shown as a diff, and taken over as a whole."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from g4agent.errors import ConfigError
from g4agent.project.entries import LINK, Entry
from g4agent.project.git import AUTHOR, Scratch, run_git
from g4agent.project.project import Project
from g4agent.project.replace import replace_files
from g4agent.protected_paths import ProtectedPaths

ZERO = "0" * 40


@dataclass(frozen=True, slots=True)
class Changes:
    """The difference between a project as the run found it and its copy at the end."""

    project: Project
    files: Mapping[str, Entry | None]
    """By path, what is new or changed; None for what is gone."""
    left_out: tuple[str, ...] = ()
    """Changes that may not be taken over, each with the reason."""

    @classmethod
    def of(cls, project: Project, snapshot: bytes) -> Changes:
        """The changes in a snapshot of the workspace.

        Left out: files that a run may read and not change, and links that lead out of the project.
        """
        after, before = project.after(snapshot), project.entries
        files: dict[str, Entry | None] = {}
        left_out = []
        for path in sorted(after.keys() | before.keys()):
            entry = after.get(path)
            if entry == before.get(path):
                continue
            refusal = ProtectedPaths().unchangeable(path) or _leads_out(path, entry)
            if refusal is None:
                files[path] = entry
            else:
                left_out.append(refusal)
        return cls(project, files, tuple(left_out))

    def diff(self) -> str:
        """A patch that `git apply` takes; empty where there is none. What is not UTF-8 comes as surrogates."""
        if not self.files:
            return ""
        before = {path: entry for path, entry in self.project.entries.items() if path in self.files}
        with Scratch() as scratch:
            return scratch.diff(before, {path: entry for path, entry in self.files.items() if entry is not None})

    def apply(self) -> None:
        """Changes the project's own files: all of them, or none. Raises ChangesConflictError."""
        before = {path: entry for path, entry in self.project.entries.items() if path in self.files}
        replace_files(self.project.folder, before, self.files)

    def applied(self) -> Project:
        """The project as it is once the changes are applied."""
        entries = {**self.project.entries, **self.files}
        return replace(self.project, entries={path: entry for path, entry in entries.items() if entry is not None})

    def commit(self, branch: str, message: str) -> str:
        """Commits the changes to a new branch, and touches no file; gives the commit.

        Where a changed file was not as in the last commit, a commit before it holds it as the run found it.

        Raises:
            ConfigError: The project is no git repository, or the branch is there already.
        """
        require_new_branch(self.project, branch)
        folder = self.project.folder
        prefix = run_git(["rev-parse", "--show-prefix"], folder).decode(errors="surrogateescape").rstrip("\n")
        head = run_git(["rev-parse", "--verify", "--quiet", "HEAD^{commit}"], folder, codes=(0, 1)).decode().strip()
        before = {prefix + path: self.project.entries.get(path) for path in self.files}
        found = self._tree(head, before)
        if head and run_git(["rev-parse", f"{head}^{{tree}}"], folder).decode().strip() != found:
            head = self._commit(found, "Work in progress, as the run found it", head)
        commit = self._commit(self._tree(head, {prefix + p: e for p, e in self.files.items()}), message, head)
        run_git(["update-ref", f"refs/heads/{branch}", commit, ZERO], folder)
        return commit

    def _tree(self, start: str, files: Mapping[str, Entry | None]) -> str:
        """The tree of a commit, or the empty one, with some files replaced."""
        with tempfile.TemporaryDirectory(prefix="g4agent-index-") as temporary:
            index = {"GIT_INDEX_FILE": str(Path(temporary) / "index")}
            folder = self.project.folder
            run_git(["read-tree", start or "--empty"], folder, env=index)
            lines = b"".join(self._index_line(path, entry) for path, entry in files.items())
            run_git(["update-index", "-z", "--index-info"], folder, stdin=lines, env=index)
            return run_git(["write-tree"], folder, env=index).decode().strip()

    def _index_line(self, path: str, entry: Entry | None) -> bytes:
        if entry is None:
            return b"0 %s\t%s\0" % (ZERO.encode(), os.fsencode(path))
        filters = ["--no-filters"] if entry.mode == LINK else ["--path", path]
        made = run_git(["hash-object", "-w", "--stdin", *filters], self.project.folder, stdin=entry.data)
        return b"%o %s\t%s\0" % (entry.mode, made.strip(), os.fsencode(path))

    def _commit(self, tree: str, message: str, parent: str) -> str:
        folder = self.project.folder
        own = run_git(["config", "--get", "user.email"], folder, codes=(0, 1)).strip()
        roles = () if own else ("AUTHOR", "COMMITTER")
        env = {
            f"GIT_{role}_{key}": value for role in roles for key, value in zip(("NAME", "EMAIL"), AUTHOR, strict=True)
        }
        parents = ["-p", parent] if parent else []
        made = run_git(["commit-tree", tree, *parents], folder, stdin=message.encode(), env=env)
        return made.decode().strip()


def require_new_branch(project: Project, branch: str) -> None:
    """Raises ConfigError unless a branch of that name can be made in the project's repository."""
    if not project.in_repository:
        raise ConfigError(f"{project.folder} is no git repository: no branch can be made", hint="Use apply or patch.")
    ref = f"refs/heads/{branch}"
    if not run_git(["check-ref-format", "--normalize", ref], project.folder, codes=(0, 1)) or branch.startswith("-"):
        raise ConfigError(f"{branch!r} cannot be a branch's name", hint="Use letters, digits, - and /.")
    if run_git(["for-each-ref", ref], project.folder):
        raise ConfigError(f"there is a branch {branch} already", hint="Give another name: it would be overwritten.")


def _leads_out(path: str, entry: Entry | None) -> str | None:
    """Why a link may not be taken over; None where it may, or is none."""
    if entry is None or entry.mode != LINK:
        return None
    target = os.fsdecode(entry.data)
    inside = os.path.normpath(Path(path).parent / target)
    out = inside == ".." or inside.startswith(("/", "../"))
    return f"{path} is a link out of the project, to {target}" if out else None
