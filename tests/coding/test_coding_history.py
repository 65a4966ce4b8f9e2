"""undo: changes are taken back one by one, whoever made them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest

from g4agent import Agent
from g4agent.testing import ScriptedModel, call, say
from g4agent_coding import tools
from g4agent_coding.history import undo
from g4agent_coding.wide import edit_text, run_command, write_file


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path) -> Iterator[Path]:
    with chdir(tmp_path):
        yield tmp_path


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and ".g4agent" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_every_kind_of_change_is_taken_back_in_turn(workspace: Path) -> None:
    """An edit, a new file, and what a command did: bytes, line ends and deleted files come back."""
    (workspace / "w.txt").write_bytes(b"a\r\nb\n")
    (workspace / ".gitattributes").write_text("* text eol=lf\n")
    states = [files(workspace)]
    edit_text("w.txt", "a", "x")
    states.append(files(workspace))
    write_file("new/n.txt", "n\n")
    states.append(files(workspace))
    run_command("rm w.txt; mkdir d; printf '\\0\\1' > d/bin")
    for name in ("run_command", "write_file", "edit_file"):
        assert undo()["undone"] == name
        assert files(workspace) == states.pop()
    assert undo() == {"error": "nothing was changed, or all of it was taken back"}
    write_file("again.txt", "1\n")
    assert undo() == {"undone": "write_file", "files": ["again.txt"]}


def test_what_changed_nothing_is_passed_over(workspace: Path) -> None:
    """A refused edit or a command that only looked must not use up an undo."""
    write_file("a.txt", "1\n")
    edit_text("a.txt", "nowhere", "x")
    run_command("ls")
    assert undo() == {"undone": "write_file", "files": ["a.txt"]}


def test_the_projects_repository_and_what_it_ignores_are_left_alone(workspace: Path) -> None:
    """Undo must neither move the project's branch nor delete its build output."""
    subprocess.run("git init -q . && printf 'build/\\n' > .gitignore", shell=True, check=True)
    run_command("mkdir build; echo 1 > build/o; echo 2 > a.txt")
    assert undo() == {"undone": "run_command", "files": ["a.txt"]}
    assert (workspace / "build/o").exists()
    status = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True)
    assert status.stdout == "?? .gitignore\n"


def test_a_file_that_cannot_be_read_does_not_stop_the_work(workspace: Path) -> None:
    """No history is better than no edits, and better than one that goes back too far."""
    write_file("a.txt", "1\n")
    (workspace / ".g4agent/history/objects").chmod(0o755)
    (workspace / ".g4agent/history/HEAD").write_text("broken")
    assert edit_text("a.txt", "1", "2") == {"path": "a.txt", "replaced": 1}
    assert "error" in undo()


@pytest.mark.anyio
async def test_undo_works_across_a_session_in_the_sandbox() -> None:
    """Each call is a process of its own there: the history must outlive it."""
    script = [
        call("write_file", path="a.txt", text="one\n"),
        call("edit_file", path="a.txt", old="one", new="two"),
        call("undo"),
        call("read_file", path="a.txt"),
        say("done"),
    ]
    result = await Agent(model=ScriptedModel(script), tools=tools(full=True), store=False).run("x")
    assert [r.value for r in result.results][2:] == [
        {"undone": "edit_file", "files": ["a.txt"]},
        {"text": "one", "lines": "1-1 of 1"},
    ]
