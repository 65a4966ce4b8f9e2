"""git_diff, git_log and git_commit on real repositories."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest

from g4agent_coding.commits import git_commit, git_diff, git_log


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path) -> Iterator[Path]:
    """A repository with one commit."""
    with chdir(tmp_path):
        git("init", "-q", "-b", "main")
        git("config", "user.email", "ada@example.org")
        git("config", "user.name", "Ada")
        (tmp_path / "a.txt").write_text("one\n")
        git("add", ".")
        git("commit", "-qm", "First")
        yield tmp_path


def test_the_difference_shows_new_and_deleted_files_and_stages_nothing(workspace: Path) -> None:
    """A new file that is not in the diff would be forgotten; a staged one would be a side effect."""
    (workspace / "a.txt").unlink()
    (workspace / "b").mkdir()
    (workspace / "b/new.txt").write_text("two\n")
    before = git("status", "--porcelain")
    diff = git_diff()
    assert diff["files"] == ["D a.txt", "A b/new.txt"] and "+two" in diff["diff"] and "-one" in diff["diff"]
    assert git_diff("b")["files"] == ["A b/new.txt"]
    assert git("status", "--porcelain") == before


def test_what_tests_leave_behind_is_in_no_diff_and_no_commit(workspace: Path) -> None:
    """Bytecode of a project without `.gitignore` would fill a small context; a file that is tracked stays so."""
    for path in ("__pycache__/a.pyc", "deep/.pytest_cache/x", "deep/new.txt"):
        (workspace / path).parent.mkdir(parents=True, exist_ok=True)
        (workspace / path).write_text("x\n")
    assert git_diff()["files"] == ["A deep/new.txt"]
    git("add", "--force", "__pycache__")
    git("commit", "-qm", "Tracked")
    (workspace / "__pycache__/a.pyc").write_text("y\n")
    assert git_commit("All")["files"] == ["__pycache__/a.pyc", "deep/new.txt"]


def test_a_commit_takes_all_but_secrets_and_runs_no_hook(workspace: Path) -> None:
    """A hook is a program that a repository brings along; `.env` must not get into history by `commit all`."""
    hook = workspace / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\ntouch hooked\n")
    hook.chmod(0o755)
    for path in (".env", ".env.example", "c.txt"):
        (workspace / path).write_text("x\n")
    done = git_commit("Add an example\n\nAnd more.")
    assert done["files"] == [".env.example", "c.txt"]
    assert git_commit("again") == {"error": "nothing has changed since the last commit"}
    assert git("log", "-1", "--format=%an: %s") == "Ada: Add an example\n"
    assert not (workspace / "hooked").exists() and git("status", "--porcelain") == "?? .env\n"
    assert [line.split(" ", 2)[2] for line in git_log()["commits"]] == ["Ada: Add an example", "Ada: First"]
    assert len(git_log("a.txt")["commits"]) == len(git_log(count=1)["commits"]) == 1


def test_a_fresh_repository_and_none_at_all_are_no_crash(tmp_path: Path, workspace: Path) -> None:
    """The model is told how to begin; no identity has to be configured."""
    folder = tmp_path / "fresh"
    folder.mkdir()
    with chdir(folder):
        assert "git init" in git_diff()["error"]
        git("init", "-q")
        assert git_log() == {"commits": []} and git_diff() == {"files": [], "diff": ""}
        Path("a").write_text("1\n")
        assert git_commit("First")["files"] == ["a"]
