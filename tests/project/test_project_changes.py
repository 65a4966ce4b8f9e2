"""Copies of real folders and git repositories, and their changes taken over as a whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from g4agent.errors import ConfigError
from g4agent.project import Changes, ChangesConflictError, Entry, Project
from g4agent.project.entries import EXECUTABLE, LINK, read_archive, read_entry, write_archive, write_entry


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit: two texts, a script, a link and a binary file."""
    folder = tmp_path / "repository"
    (folder / "src").mkdir(parents=True)
    (folder / "a.txt").write_text("one\ntwo\n")
    (folder / "src/b.py").write_text("x = 1\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("src/b.py")
    (folder / "data.bin").write_bytes(bytes(range(256)))
    (folder / ".gitignore").write_text("build/\n*.log\n")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "config", "user.email", "ada@example.org")
    git(folder, "config", "user.name", "Ada")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "First")
    return folder


def state(folder: Path) -> dict[str, Entry | None]:
    """All files and links, but git's own."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    relative = {path.relative_to(folder).as_posix(): read_entry(path) for path in found}
    return {path: entry for path, entry in relative.items() if not path.startswith(".git/")}


def changed(project: Project, files: Mapping[str, Entry | None]) -> Changes:
    """The changes of a run that made these files; None removes one."""
    after = {path: entry for path, entry in {**project.entries, **files}.items() if entry is not None}
    return Changes.of(project, write_archive(after))


EVERYTHING: Mapping[str, Entry | None] = {
    "a.txt": Entry(b"one\n2\n"),
    "src/b.py": None,
    "src/new/c.py": Entry(b"y = 2\n", EXECUTABLE),
    "run.sh": Entry(b"#!/bin/sh\n"),
    "link": Entry(b"a.txt", LINK),
    "data.bin": Entry(b"\0\xff\xfe"),
    'sp ace "ü".txt': Entry("ü\n".encode()),
}


def test_a_copy_has_what_git_has_and_no_secret(repository: Path) -> None:
    """Uncommitted and new files come along; ignored and protected ones, and the repository itself, stay at home."""
    (repository / "a.txt").write_text("changed\n")
    (repository / "new.txt").write_text("new\n")
    (repository / "src/b.py").unlink()
    for path in ("build/out.o", "x.log", ".env", "node_modules/m/index.js"):
        (repository / path).parent.mkdir(parents=True, exist_ok=True)
        (repository / path).write_text("x")
    project = Project.read(repository)
    assert project.entries.keys() == {".gitignore", "a.txt", "data.bin", "link", "new.txt", "run.sh"}
    copy = read_archive(project.archive())
    assert copy["a.txt"] == Entry(b"changed\n") and copy["link"].mode == LINK and copy["run.sh"].mode == EXECUTABLE
    assert ".git/HEAD" in copy and not Changes.of(project, project.archive()).files


def in_the_box(project: Project, folder: Path) -> Path:
    """The copy, put down as a box restores it."""
    for path, entry in read_archive(project.archive()).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_entry(folder / path, entry)
    return folder


def test_the_copy_knows_the_latest_commits_and_not_where_it_comes_from(repository: Path, tmp_path: Path) -> None:
    """The log is the project's; what was uncommitted is a commit, so that a diff shows what the run did alone."""
    git(repository, "switch", "-q", "-c", "feature/x")
    clean = in_the_box(Project.read(repository), tmp_path / "clean")
    assert (
        git(clean, "log", "--format=%s") == "First\n" and git(clean, "status", "--porcelain", "-b") == "## feature/x\n"
    )
    (repository / "a.txt").write_text("mine\n")
    for number in range(30):
        git(repository, "commit", "-q", "--allow-empty", "-m", f"Number {number}")
    box = in_the_box(Project.read(repository), tmp_path / "box")
    log = git(box, "log", "--format=%s").splitlines()
    assert log[:2] == ["The project as the run found it", "Number 29"] and len(log) == 21
    assert git(box, "status", "--porcelain") == "" and git(box, "show", "--format=", "--name-only") == "a.txt\n"
    assert git(box, "fsck") == "" and git(box, "remote") == ""
    assert not any(
        str(repository).encode() in file.read_bytes() for file in (box / ".git").rglob("*") if file.is_file()
    )


def test_a_secret_that_was_ever_committed_keeps_the_history_at_home(repository: Path, tmp_path: Path) -> None:
    """A deleted file is still in the history, and `git show` would read it."""
    (repository / ".env").write_text("KEY=1\n")
    git(repository, "add", "-f", ".env")
    git(repository, "commit", "-qm", "Oops")
    git(repository, "rm", "-q", ".env")
    git(repository, "commit", "-qm", "Remove it")
    box = in_the_box(Project.read(repository), tmp_path / "box")
    assert git(box, "log", "--format=%s") == "The project as the run found it\n"
    objects = subprocess.run(
        ["git", "cat-file", "--batch-all-objects", "--batch"], cwd=box, check=True, capture_output=True
    ).stdout
    assert b"one" in objects and b"KEY=1" not in objects
    git(repository, "checkout", "-q", "--detach")
    part = in_the_box(Project.read(repository / "src"), tmp_path / "part")
    assert git(part, "ls-files") == "b.py\n"


def test_a_plain_folder_and_a_part_of_a_repository_are_copied_too(tmp_path: Path, repository: Path) -> None:
    """The rest of the repository is none of the run's business."""
    assert Project.read(repository / "src").entries == {"b.py": Entry(b"x = 1\n")}
    folder = tmp_path / "plain"
    (folder / "__pycache__").mkdir(parents=True)
    (folder / "__pycache__/a.pyc").touch()
    (folder / "a.py").write_text("1\n")
    project = Project.read(folder)
    assert project.entries == {"a.py": Entry(b"1\n")} and not any(".git/" in p for p in read_archive(project.archive()))
    with pytest.raises(ConfigError, match="is not a folder"):
        Project.read(folder / "a.py")


def test_applied_changes_leave_the_project_as_the_copy_is(repository: Path) -> None:
    """Edited, deleted, new, executable, links and binary: all kinds at once, and nothing else."""
    project = Project.read(repository)
    before = state(repository)
    changed(project, EVERYTHING).apply()
    expected = {path: entry for path, entry in {**before, **EVERYTHING}.items() if entry is not None}
    assert state(repository) == expected
    assert not (repository / "src/b.py").exists() and not list(repository.glob(".g4agent*"))


def test_the_diff_is_a_patch_that_git_applies(repository: Path) -> None:
    """What is shown is what would happen, binary files and modes included."""
    diff = changed(Project.read(repository), EVERYTHING).diff()
    assert "-two\n+2\n" in diff and "old mode 100755" in diff and "GIT binary patch" in diff
    subprocess.run(["git", "apply", "-"], cwd=repository, input=diff.encode(), check=True)
    assert state(repository)["a.txt"] == Entry(b"one\n2\n") and state(repository)["link"] == Entry(b"a.txt", LINK)
    assert changed(Project.read(repository), {}).diff() == ""


@pytest.mark.parametrize(
    "swap", [{"src/b.py": None, "src": Entry(b"a file\n")}, {"a.txt": None, "a.txt/b": Entry(b"1")}]
)
def test_a_folder_becomes_a_file_and_a_file_a_folder(repository: Path, swap: Mapping[str, Entry | None]) -> None:
    """The order of the moves matters here."""
    changed(Project.read(repository), swap).apply()
    now = state(repository)
    assert all(now.get(path) == entry for path, entry in swap.items())


def test_what_somebody_changed_meanwhile_stops_all_of_it(repository: Path) -> None:
    """An edited file, one that came into being, and a folder that is a link now: none is overwritten."""
    for path, change in (("a.txt", "edited"), ("src/new/c.py", "made")):
        project = Project.read(repository)
        (repository / path).parent.mkdir(parents=True, exist_ok=True)
        (repository / path).write_text(change)
        before = state(repository)
        with pytest.raises(ChangesConflictError, match=f"not as the run found them: {path}"):
            changed(project, EVERYTHING).apply()
        assert state(repository) == before
        git(repository, "reset", "-q", "--hard")
        git(repository, "clean", "-qfd")
    project = Project.read(repository)
    outside = repository.parent / "outside"
    (repository / "src").rename(outside)
    (repository / "src").symlink_to(outside)
    with pytest.raises(ChangesConflictError):
        changed(project, {"src/b.py": Entry(b"x = 2\n")}).apply()
    assert (outside / "b.py").read_text() == "x = 1\n"


def test_an_error_half_way_takes_everything_back(repository: Path) -> None:
    """The last file's folder cannot be made, as a new file stands there: the others must not stay changed."""
    project = Project.read(repository)
    (repository / "z").write_text("x")
    before = state(repository)
    with pytest.raises(ChangesConflictError, match="was not changed"):
        changed(project, {**EVERYTHING, "z/new.txt": Entry(b"1")}).apply()
    assert state(repository) == before


KILLED = """
import os, signal, sys
from pathlib import Path
from g4agent.project import Project
from test_project_changes import EVERYTHING, changed

left = int(sys.argv[2])
def watch(event, arguments):
    global left
    if event in ("os.rename", "os.remove"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

changes = changed(Project.read(Path(sys.argv[1])), EVERYTHING)
sys.addaudithook(watch)
changes.apply()
"""


def test_a_process_killed_at_any_move_leaves_all_or_nothing(repository: Path) -> None:
    """The next process that looks at the project takes back what was begun; once final, it stays."""
    before = state(repository)
    expected = {path: entry for path, entry in {**before, **EVERYTHING}.items() if entry is not None}
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    outcomes = []
    for move in range(1, 40, 3):
        done = subprocess.run([sys.executable, "-c", KILLED, str(repository), str(move)], env=environment, timeout=60)
        Project.read(repository)
        now = state(repository)
        assert now in (before, expected)
        outcomes.append(now == expected)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        if now == expected:
            git(repository, "reset", "-q", "--hard")
            git(repository, "clean", "-qfd")
    assert outcomes[-1] and not outcomes[0] and len(outcomes) > 4


def test_a_branch_holds_the_changes_and_no_file_is_touched(repository: Path) -> None:
    """Uncommitted work that was changed further comes as a commit of its own, so that the last is the run's alone."""
    (repository / "a.txt").write_text("one\ntwo\nmine\n")
    (repository / "unrelated.txt").write_text("mine\n")
    before, status = state(repository), git(repository, "status", "--porcelain")
    changes = changed(Project.read(repository), {"a.txt": Entry(b"one\n2\nmine\n"), "src/b.py": None})
    changes.commit("fix/it", "Fix it\n\nMore.\n")
    assert state(repository) == before and git(repository, "status", "--porcelain") == status
    assert git(repository, "log", "--format=%an %s", "fix/it").splitlines() == [
        "Ada Fix it",
        "Ada Work in progress, as the run found it",
        "Ada First",
    ]
    assert git(repository, "diff", "--name-status", "fix/it~", "fix/it") == "M\ta.txt\nD\tsrc/b.py\n"
    assert git(repository, "diff", "--name-status", "main", "fix/it~") == "M\ta.txt\n"
    with pytest.raises(ConfigError, match="already"):
        changes.commit("fix/it", "again")


def test_a_branch_from_a_part_of_a_repository_and_from_one_without_commits(tmp_path: Path, repository: Path) -> None:
    """Paths are the repository's; a first commit has no parent; a plain folder has no branches."""
    changed(Project.read(repository / "src"), {"b.py": Entry(b"x = 2\n")}).commit("part", "Part")
    assert git(repository, "diff", "--name-only", "main", "part") == "src/b.py\n"
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    git(fresh, "init", "-q")
    changed(Project.read(fresh), {"a": Entry(b"1\n")}).commit("new", "New")
    assert git(fresh, "show", "new:a") == "1\n"
    plain = tmp_path / "plain"
    plain.mkdir()
    with pytest.raises(ConfigError, match="no git repository"):
        changed(Project.read(plain), {"a": Entry(b"1\n")}).commit("new", "New")
    with pytest.raises(ConfigError, match="cannot be a branch's name"):
        changed(Project.read(repository), {"a": Entry(b"1\n")}).commit("a..b", "New")


def test_what_may_not_come_out_is_left_out_and_said(repository: Path) -> None:
    """A command in the sandbox can write what a tool would refuse: CI files, secrets, links to the outside."""
    made: Mapping[str, Entry | None] = {
        ".github/workflows/ci.yml": Entry(b"on: push\n"),
        ".env": Entry(b"KEY=1\n"),
        ".git/hooks/pre-commit": Entry(b"#!/bin/sh\n", EXECUTABLE),
        ".g4agent/out/1.txt": Entry(b"log"),
        "build/out.o": Entry(b"o"),
        "src/__pycache__/b.pyc": Entry(b"p"),
        "passwd": Entry(b"/etc/passwd", LINK),
        "src/up": Entry(b"../../x", LINK),
        "src/side": Entry(b"../a.txt", LINK),
    }
    changes = changed(Project.read(repository), made)
    assert changes.files == {"src/side": Entry(b"../a.txt", LINK)}
    assert [line.split()[0] for line in changes.left_out] == [".github/workflows/ci.yml", "passwd", "src/up"]


NAMES = st.sampled_from(["a", "b", "d/a", "d/b", "d/e/a"])
FILES = st.dictionaries(NAMES, st.builds(Entry, st.binary(max_size=3), st.sampled_from([0o100644, 0o100755])))


@settings(max_examples=30)
@given(before=FILES, after=FILES)
def test_any_state_becomes_any_other(
    tmp_path_factory: pytest.TempPathFactory, before: dict[str, Entry], after: dict[str, Entry]
) -> None:
    """Whatever was there and whatever comes out: the folder ends as the copy."""
    folder = tmp_path_factory.mktemp("folder")
    empty = Project.read(folder)
    Changes.of(empty, write_archive(before)).apply()
    project = Project.read(folder)
    assert project.entries == before
    Changes.of(project, write_archive(after)).apply()
    assert state(folder) == after
