"""The project's own git repository: what changed, what was done before, and committing."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from g4agent.project.project import SKIPPED_FOLDERS
from g4agent.protected_paths import ProtectedPaths
from g4agent.tools import tool
from g4agent.workspace_files import Refusal, answers_refusals, locate
from g4agent_coding.git import git, require_repository
from g4agent_coding.history import AUTHOR
from g4agent_coding.private import locked
from g4agent_coding.shaping import Shape, shape

DIFF_SHOWN = Shape(head_lines=120, tail_lines=40, chars=8000)
PLAIN = ("--no-color", "--no-ext-diff", "--no-textconv")
GENERATED = tuple(f"--exclude={name}/" for name in sorted(SKIPPED_FOLDERS))
"""What tests leave behind, where no `.gitignore` says so: it would fill a diff, and comes out of no copy either."""
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


@tool(effect="idempotent")
@answers_refusals
def git_diff(path: str = ".") -> dict[str, Any]:
    """Show what changed since the last commit, new files included.

    Args:
        path: File or folder.
    """
    require_repository()
    inside = locate(path).relative_to(Path.cwd().resolve()).as_posix()
    with tempfile.TemporaryDirectory() as folder:  # an index of its own, so that nothing is staged
        index = {"GIT_INDEX_FILE": f"{folder}/index"}
        head = _head()
        git("read-tree", head or EMPTY_TREE, env=index)
        _add(index)
        where = ["--cached", head or EMPTY_TREE, "--", inside]
        names = git("diff", *PLAIN, "--name-status", *where, env=index).splitlines()
        diff = git("diff", *PLAIN, *where, env=index)
    return {"files": [name.replace("\t", " ") for name in names], "diff": shape(diff, DIFF_SHOWN) if diff else ""}


@tool(effect="pure")
@answers_refusals
def git_log(path: str = ".", count: Annotated[int, Field(ge=1, le=50)] = 10) -> dict[str, Any]:
    """List the latest commits.

    Args:
        path: Only those that changed this file or folder.
        count: How many.
    """
    require_repository()
    inside = locate(path).relative_to(Path.cwd().resolve()).as_posix()
    if _head() is None:
        return {"commits": []}
    form = "--format=%h %ad %an: %s"
    lines = git("log", f"-{count}", "--date=short", form, "--", inside).splitlines()
    return {"commits": lines}


@tool(effect="once")
@answers_refusals
def git_commit(message: str) -> dict[str, Any]:
    """Commit all changes.

    Args:
        message: What was done.
    """
    require_repository()
    if not message.strip():
        raise Refusal("`message` is empty")
    with locked():
        _add({})
        files = git("diff", "--cached", "--name-only", "-z", _head() or EMPTY_TREE).split("\0")[:-1]
        if not files:
            raise Refusal("nothing has changed since the last commit")
        git("commit", "--quiet", "--file=-", settings=_author(), stdin=message)
    return {"commit": git("rev-parse", "--short", "HEAD").strip(), "files": files}


def _head() -> str | None:
    """The last commit; None before the first."""
    try:
        return git("rev-parse", "--verify", "--quiet", "HEAD^{commit}").strip()
    except Refusal:
        return None


def _add(index: Mapping[str, str]) -> None:
    """Stages all changes but those to protected files."""
    changed = git("ls-files", "-z", "--modified", "--deleted", "--others", "--exclude-standard", *GENERATED, env=index)
    paths = [path for path in dict.fromkeys(changed.split("\0")) if path and not ProtectedPaths().unreadable(path)]
    if paths:
        git("add", "--all", "--pathspec-from-file=-", "--pathspec-file-nul", env=index, stdin="\0".join(paths))


def _author() -> tuple[str, ...]:
    """The repository's own author where it names one."""
    own = git("config", "--local", "--default", "", "--get", "user.email").strip()
    return AUTHOR[2:] if own else AUTHOR
