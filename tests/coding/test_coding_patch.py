"""apply_patch: what fits is applied whole; what does not changes nothing and says which hunk."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from g4agent_coding.patching import apply_patch
from g4agent_coding.unified import apply_hunks, read_patch

TWO = "def f():\n    return 1\n\n\ndef g():\n    return 1\n"
BOTH = """\
diff --git a/a.py b/a.py
--- a/a.py
+++ b/a.py
@@ -1,2 +1,2 @@
 def f():
-    return 1
+    return 2
@@ -5,2 +5,3 @@
 def g():
-    return 1
+    x = 3
+    return x
"""


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path) -> Iterator[Path]:
    with chdir(tmp_path):
        (tmp_path / "a.py").write_text(TWO)
        yield tmp_path


def test_several_files_change_at_once(workspace: Path) -> None:
    """Edited, new in a new folder, deleted and renamed: the four things that a diff can say."""
    (workspace / "old.txt").write_text("x\ny\n")
    (workspace / "name.txt").write_text("same\n")
    patch = BOTH + "--- /dev/null\n+++ b/new/b.py\n@@ -0,0 +1,2 @@\n+one\n+two\n"
    patch += "--- a/old.txt\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-x\n-y\n"
    patch += "diff --git a/name.txt b/named.txt\nsimilarity index 100%\nrename from name.txt\nrename to named.txt\n"
    assert apply_patch(patch) == {"changed": ["a.py", "new/b.py new", "old.txt deleted", "named.txt renamed"]}
    assert (workspace / "a.py").read_text() == "def f():\n    return 2\n\n\ndef g():\n    x = 3\n    return x\n"
    assert (workspace / "new/b.py").read_text() == "one\ntwo\n"
    assert (workspace / "named.txt").read_text() == "same\n"
    assert not (workspace / "old.txt").exists() and not (workspace / "name.txt").exists()


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        (
            BOTH.replace("def g", "def h"),
            "hunk 2 of a.py: its context and removed lines are not in the file; nearest is lines 5-6:\n"
            "def g():\n    return 1",
        ),
        (
            "--- a/a.py\n+++ b/a.py\n@@ -9 +9 @@\n-    return 1\n+    return 2\n",
            "hunk 1 of a.py fits at lines 2, 6: give more context lines, or the right line number",
        ),
        (BOTH + "--- a/none.py\n+++ b/none.py\n@@ -1 +1 @@\n-x\n+y\n", "no file none.py"),
        (BOTH + "--- /dev/null\n+++ b/a.py\n@@ -0,0 +1 @@\n+x\n", "a.py is there already, and the patch makes it new"),
        (
            BOTH + "--- a/a.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-def f():\n",
            "the patch deletes a.py, and does not remove all",
        ),
    ],
)
def test_one_hunk_that_does_not_fit_stops_all(workspace: Path, patch: str, reason: str) -> None:
    """A half-applied patch is worse than none, and the model must learn which hunk to mend."""
    answer = apply_patch(patch)
    assert answer["error"].startswith(f"nothing was changed: {reason}")
    assert (workspace / "a.py").read_text() == TWO


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        ("*** Begin Patch\n*** Update File: a.py\n", "this is no patch: a unified diff has"),
        ("@@ -1 +1 @@\n-a\n+b\n", "no file is named before the first hunk"),
        ("--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\nreturn 1\n", "hunk 1 of a.py: a line must begin with a space, + or -"),
        ("GIT binary patch\n", "binary files cannot be patched"),
        ("--- /dev/null\n+++ b/.env\n@@ -0,0 +1 @@\n+x\n", ".env is protected"),
        ("--- /dev/null\n+++ b/../up.txt\n@@ -0,0 +1 @@\n+x\n", "../up.txt is outside the workspace"),
    ],
)
def test_what_is_no_patch_or_not_allowed_is_refused(patch: str, reason: str) -> None:
    """The message shows the form, or says why not."""
    assert reason in apply_patch(patch)["error"]


def test_an_error_while_writing_puts_everything_back(workspace: Path) -> None:
    """The second file cannot be written: the first must not stay changed."""
    (workspace / "folder").write_text("a file where the patch wants a folder\n")
    patch = BOTH + "--- /dev/null\n+++ b/folder/new.txt\n@@ -0,0 +1 @@\n+x\n"
    assert apply_patch(patch) == {"error": "nothing was changed: cannot change folder/new.txt: File exists"}
    assert (workspace / "a.py").read_text() == TWO


def test_wrong_numbers_lost_spaces_and_windows_lines_still_fit(workspace: Path) -> None:
    """Models miscount and drop the space of empty lines; the lines themselves decide."""
    (workspace / "w.txt").write_bytes(b"a\r\n\r\nb\r\n")
    patch = "--- a/w.txt\n+++ b/w.txt\n@@ -40,9 +41,2 @@ anything\n a\n\n-b\n+c\n"
    assert apply_patch(patch) == {"changed": ["w.txt"]}
    assert (workspace / "w.txt").read_bytes() == b"a\r\n\r\nc\r\n"


def test_permissions_stay(workspace: Path) -> None:
    """A script that loses its executable bit is broken."""
    (workspace / "a.py").chmod(0o755)
    apply_patch(BOTH)
    assert (workspace / "a.py").stat().st_mode & 0o777 == 0o755


LINES = st.lists(st.sampled_from(["a", "b", "", "-- x", "++ y", "@"]), max_size=8)


@example(before=["++ y", "-- x", ""], after=["++ y", "++ y", ""], ended=(False, False))
@given(before=LINES, after=LINES, ended=st.tuples(st.booleans(), st.booleans()))
def test_any_difference_comes_out_as_it_was_meant(
    before: list[str], after: list[str], ended: tuple[bool, bool]
) -> None:
    """Whatever the two texts, with and without a last line feed: the diff of the one makes the other."""
    old, new = ("\n".join(t) + ("\n" if e and t else "") for t, e in zip((before, after), ended, strict=True))
    diff = difflib.unified_diff(old.splitlines(True), new.splitlines(True), "a/f", "b/f")
    patch = "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in diff)
    if patch:
        [file] = read_patch(patch)
        assert apply_hunks(old, file) == new
