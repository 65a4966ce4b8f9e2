"""The git repository that a copy of one gets: its latest commits, and on top the project as the run found it."""

from __future__ import annotations

from pathlib import Path

from g4agent.errors import ConfigError
from g4agent.project.entries import Entries, Entry
from g4agent.project.git import Scratch, names, run_git
from g4agent.protected_paths import ProtectedPaths

COMMITS = 20
"""Of the history, how many come along."""
MAX_BYTES = 32 * 1024 * 1024
"""A larger history stays at home."""
FOUND = "The project as the run found it"


def own_repository(folder: Path, entries: Entries) -> dict[str, Entry]:
    """The files of `.git`. The last commit is what was copied, so that a diff shows what the run did and no more.

    The history stays at home where the folder is only a part of the repository, or a secret was ever committed.
    """
    with Scratch() as fetched, Scratch() as empty:
        latest = _latest_commits(folder, fetched)
        scratch = empty if latest is None else fetched  # a history that stays at home leaves no object behind
        branch, start = latest or ("refs/heads/main", None)
        scratch.commit((entries, FOUND), branch=branch, start=start)
        if start is not None and _tree(scratch, branch) == _tree(scratch, start):
            scratch.git("update-ref", branch, start)  # nothing was uncommitted
        scratch.git("symbolic-ref", "HEAD", branch)
        scratch.git("read-tree", "HEAD")
        scratch.git("config", "core.bare", "false")
        files = (file for file in sorted(scratch.folder.rglob("*")) if file.is_file())
        return {f".git/{file.relative_to(scratch.folder).as_posix()}": Entry(file.read_bytes()) for file in files}


def _latest_commits(folder: Path, scratch: Scratch) -> tuple[str, str] | None:
    """Fetches the latest commits; gives the branch and its last one, or None where the history stays at home."""
    if run_git(["rev-parse", "--show-prefix"], folder).strip():
        return None
    try:
        scratch.git("fetch", "--quiet", "--no-tags", f"--depth={COMMITS}", folder.as_uri(), "HEAD")
    except ConfigError:  # no commit yet, or a repository that git does not serve
        return None
    head = scratch.git("rev-parse", "FETCH_HEAD").decode().strip()
    (scratch.folder / "FETCH_HEAD").unlink()  # it tells where the project lies
    committed = names(scratch.git("log", "--format=", "--name-only", "-z", "--root", "-m", head))
    size = sum(file.stat().st_size for file in scratch.folder.rglob("*") if file.is_file())
    if size > MAX_BYTES or any(map(ProtectedPaths().is_secret, committed)):
        return None
    branch = run_git(["symbolic-ref", "--quiet", "HEAD"], folder, codes=(0, 1)).decode().strip()
    return branch or "refs/heads/main", head


def _tree(scratch: Scratch, commit: str) -> bytes:
    return scratch.git("rev-parse", f"{commit}^{{tree}}")
