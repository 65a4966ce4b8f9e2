"""list_files, read_file and edit_file on real folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from g4agent_coding import tools
from g4agent_coding.files import MAX_LISTED, edit_file, list_files, read_file
from g4agent_coding.workspace import MAX_FILE_BYTES


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Path]:
    """An empty workspace with something secret beside it."""
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "workspace"
    folder.mkdir()
    with chdir(folder):
        yield folder


def test_the_pack_has_its_tools_with_their_effects() -> None:
    """The entry point's order and effects are what the model was trained on and what crash recovery relies on."""
    assert [(tool.name, tool.effect, tool.where) for tool in tools()] == [
        ("list_files", "pure", "sandbox"),
        ("read_file", "pure", "sandbox"),
        ("edit_file", "idempotent", "sandbox"),
        ("run_tests", "idempotent", "sandbox"),
    ]


def test_files_are_listed_without_the_noise(workspace: Path) -> None:
    """Caches and hidden folders would fill a small model's context."""
    for path in ("b.py", "a/c.py", "a/__pycache__/c.pyc", ".git/config"):
        (workspace / path).parent.mkdir(parents=True, exist_ok=True)
        (workspace / path).write_text("")
    assert list_files() == {"files": ["b.py", "a/c.py"]}
    assert list_files("a") == {"files": ["a/c.py"]}


def test_a_long_listing_is_cut_and_says_so(workspace: Path) -> None:
    """A cut that is not mentioned would make the model believe that a file does not exist."""
    for number in range(MAX_LISTED + 1):
        (workspace / f"{number:04}.txt").touch()
    listing = list_files()
    assert len(listing["files"]) == MAX_LISTED and "only the first" in listing["note"]


@pytest.mark.parametrize("path", ["../secret.txt", "/etc/passwd", "link.txt", "up/secret.txt", "a/../../secret.txt"])
def test_nothing_outside_the_workspace_is_touched(workspace: Path, path: str) -> None:
    """Not by dots, not by an absolute path, not through a link to a file or folder."""
    (workspace / "link.txt").symlink_to("../secret.txt")
    (workspace / "up").symlink_to("..")
    (workspace / "a").mkdir()
    refusal = {"error": f"{path} is outside the workspace"}
    assert read_file(path) == edit_file(path, "secret", "public") == refusal
    assert list_files(path) == refusal
    assert (workspace.parent / "secret.txt").read_text() == "secret"


def test_what_is_not_a_readable_text_is_refused_with_the_reason(workspace: Path) -> None:
    """A pipe would hang the call, a binary file would be garbage, a huge one would fill the context."""
    (workspace / "folder").mkdir()
    os.mkfifo(workspace / "pipe")
    (workspace / "latin.txt").write_bytes(b"caf\xe9")
    (workspace / "zero.txt").write_bytes(b"a\0b")
    (workspace / "huge.txt").write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    for path, reason in {
        "none.txt": "no file none.txt",
        "folder": "folder is a folder",
        "pipe": "pipe is not a regular file",
        "latin.txt": "latin.txt is a binary file",
        "zero.txt": "zero.txt is a binary file",
        "huge.txt": f"huge.txt is too large: {MAX_FILE_BYTES + 1} bytes, the limit is {MAX_FILE_BYTES}",
        "nul\0l": "bad path: nul\0l",
    }.items():
        assert read_file(path) == edit_file(path, "a", "b") == {"error": reason}
    assert list_files("none") == {"error": "no folder none"}
    assert list_files("latin.txt") == {"error": "latin.txt is a file"}


def test_an_edit_replaces_the_one_place_and_keeps_the_file_as_it_was_otherwise(workspace: Path) -> None:
    """Permissions and the other lines must survive, and no temporary file may stay behind."""
    file = workspace / "run.sh"
    file.write_text("one\ntwo\nthree\n")
    file.chmod(0o755)
    assert edit_file("run.sh", "two", "2\n2") == {"path": "run.sh", "replaced": 1}
    assert file.read_text() == "one\n2\n2\nthree\n"
    assert file.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in workspace.iterdir()] == ["run.sh"]


def test_an_edit_that_is_not_clear_is_refused_and_changes_nothing(workspace: Path) -> None:
    """The message has to tell the model how to ask better."""
    text = "def f(x):\n    return x\n\n\ndef g(x):\n    return x\n"
    (workspace / "f.py").write_text(text)
    for old, new, reason in (
        ("return y", "return 1", "`old` not found; nearest is line 2:\n    return x"),
        ("zzz", "1", "`old` not found"),
        ("    return x", "return 1", "`old` occurs 2 times, at lines 2, 6: give more context"),
        (
            "def f(x):\n  return x",
            "",
            "`old` not found: its spaces or line breaks differ; lines 1-2:\ndef f(x):\n    return x",
        ),
        ("", "x", "`old` is empty"),
        ("def f", "def f", "`old` and `new` are the same"),
    ):
        assert edit_file("f.py", old, new) == {"error": reason}
    huge = edit_file("f.py", "def f", "x" * MAX_FILE_BYTES)
    assert "too large" in huge["error"]
    assert (workspace / "f.py").read_text() == text


def test_windows_line_ends_are_hidden_and_kept(workspace: Path) -> None:
    """The model writes plain line feeds; its edit must match, and must not mix line ends."""
    (workspace / "w.py").write_bytes(b"a\r\nb\r\nc\r\n")
    assert read_file("w.py") == {"text": "a\nb\nc\n"}
    assert edit_file("w.py", "a\nb", "a\nx\ny") == {"path": "w.py", "replaced": 1}
    assert (workspace / "w.py").read_bytes() == b"a\r\nx\r\ny\r\nc\r\n"


@given(before=st.text("ab \n", max_size=8), after=st.text("ab \n", max_size=8), new=st.text("ab\nü", max_size=8))
def test_an_edit_is_exactly_a_replacement(
    tmp_path_factory: pytest.TempPathFactory, before: str, after: str, new: str
) -> None:
    """Whatever surrounds the place, nothing else changes."""
    with chdir(tmp_path_factory.mktemp("w")):
        Path("f.txt").write_text(f"{before}<old>{after}", encoding="utf-8")
        assert edit_file("f.txt", "<old>", new) == {"path": "f.txt", "replaced": 1}
        assert read_file("f.txt") == {"text": f"{before}{new}{after}"}
