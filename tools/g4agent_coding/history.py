"""What the workspace was before each change, so that changes can be taken back.

Kept by git in a folder of its own, `.g4agent/history`; the project's own repository, if it has one, is not touched.
A commit there is the state before a change; the latest one is what `undo` goes back to. What the project's
`.gitignore` leaves out is left out here too.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from g4agent.tools import tool
from g4agent.workspace_files import PRIVATE, Refusal, answers_refusals, private_folder
from g4agent_coding.git import git
from g4agent_coding.private import locked

REPOSITORY = "history"
UNDO = "undo"
ATTRIBUTES = "* -text -filter -ident -eol -working-tree-encoding\n"
"""Bytes are kept as they are: no line ends, encodings or filters that the project's attributes ask for."""
AUTHOR = ("user.name=g4agent", "user.email=g4agent@localhost", "commit.gpgSign=false")


def remember(change: str) -> None:
    """Commits the workspace as it is, under the name of the change that is about to be made.

    Where there is no git, or it cannot read all of the workspace, there is no history: changes are made all the same.
    """
    if shutil.which("git"):
        with locked():
            try:
                _commit(change)
            except Refusal:
                shutil.rmtree(private_folder(REPOSITORY), ignore_errors=True)


@tool(effect="once")
@answers_refusals
def undo() -> dict[str, Any]:
    """Take back the last change to the files. Again: the one before."""
    if not shutil.which("git"):
        raise Refusal("there is no git here, so nothing was remembered")
    with locked():
        _commit(UNDO)
        now = _git("rev-parse", "HEAD^{tree}").strip()
        for commit in _git("rev-list", "HEAD").split():
            files = _git("diff", "--name-only", "--no-renames", "-z", commit, now).split("\0")[:-1]
            if files:
                change = _git("log", "-1", "--format=%s", commit).strip()
                _git("read-tree", "--reset", "-u", commit)
                _forget(commit)
                return {"undone": change, "files": files}
    raise Refusal("nothing was changed, or all of it was taken back")


def _commit(subject: str) -> None:
    folder = private_folder(REPOSITORY)
    if not (folder / "HEAD").exists():
        git("init", "--quiet", "--bare", "--template=", str(folder))
        (folder / "info").mkdir(exist_ok=True)
        (folder / "info" / "attributes").write_text(ATTRIBUTES)
        (folder / "info" / "exclude").write_text(f"/{PRIVATE}/\n")
    _git("add", "--all")
    tree = _git("write-tree").strip()
    latest = _git("for-each-ref", "--format=%(objectname) %(tree) %(parent)", "refs/heads/").split()
    parents = latest[:1]
    if tree in latest[1:2]:
        if subject == UNDO:
            return
        parents = latest[2:]  # what was remembered last made no difference: this takes its place
    commit = _git("commit-tree", tree, "-m", subject, *(word for parent in parents for word in ("-p", parent))).strip()
    _git("update-ref", "HEAD", commit)


def _forget(commit: str) -> None:
    """The commit before this one becomes the latest."""
    before = _git("rev-list", "--parents", "-1", commit).split()[1:]
    _git("update-ref", *(["HEAD", before[0]] if before else ["-d", "HEAD"]))


def _git(*arguments: str) -> str:
    place = {"GIT_DIR": str(private_folder(REPOSITORY)), "GIT_WORK_TREE": str(Path.cwd())}
    return git(*arguments, env=place, settings=AUTHOR)
