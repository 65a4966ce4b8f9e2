"""`g4agent run --workspace`: a copy of a real repository goes into the sandbox, and its changes come out as asked."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest
from command_line import COMMAND, Command, heed_ctrl_c
from terminal import Terminal

MENDER = ("run", "Fix add.", "--agent", "scripted_agents:mender", "--workspace")
TEST = "import unittest\nfrom totals import add\n\nclass T(unittest.TestCase):\n    def test_add(self):\n"
EDITED = "-    return a - b\n+    return a + b\n"


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository whose tests fail."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "totals.py").write_text("def add(a, b):\n    return a - b\n")
    (folder / "test_totals.py").write_text(TEST + "        self.assertEqual(add(2, 3), 5)\n")
    (folder / ".gitignore").write_text("*.log\n")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=Ada", "-c", "user.email=ada@example.org", "commit", "-qm", "First")
    return folder


def is_untouched(project: Path) -> bool:
    return (
        git(project, "status", "--porcelain") == "" and git(project, "branch", "--format=%(refname:short)") == "main\n"
    )


def test_changes_are_applied_where_that_was_asked_for(g4agent: Command, project: Path) -> None:
    """The diff is shown, the file is mended, and what may not come out is named and stays out."""
    done = g4agent(*MENDER, str(project), "--changes", "apply")
    assert done.returncode == 0, done.stderr
    assert EDITED in done.stdout and f"applied to {project}" in done.stdout
    assert "left out: .github/workflows is protected" in done.stdout
    assert "left out: link is a link out of the project" in done.stdout
    assert git(project, "status", "--porcelain") == " M totals.py\n"


def test_a_patch_or_a_branch_leaves_the_files_alone(g4agent: Command, project: Path, tmp_path: Path) -> None:
    """Both carry the whole change: applied, or checked out, the tests pass."""
    patch = tmp_path / "out.patch"
    done = g4agent(*MENDER, str(project), "--changes", f"patch={patch}")
    assert done.returncode == 0 and EDITED in patch.read_text() and is_untouched(project)
    done = g4agent(*MENDER, str(project), "--changes", "branch=fix-add")
    assert done.returncode == 0 and "committed to the branch fix-add" in done.stdout
    assert git(project, "status", "--porcelain") == ""
    assert git(project, "log", "-1", "--format=%s", "fix-add") == "Fix add.\n"
    assert git(project, "show", "fix-add:totals.py").endswith("return a + b\n")
    git(project, "apply", str(patch))
    assert git(project, "diff", "--stat", "fix-add") == ""


def test_a_run_that_did_not_end_well_applies_nothing_and_loses_nothing(g4agent: Command, project: Path) -> None:
    """The patch stays with the session, and its place is told."""
    done = g4agent("run", "x", "--agent", "scripted_agents:mender_lost", "-w", str(project), "--changes", "apply")
    assert done.returncode == 11 and is_untouched(project)
    kept = Path(done.stdout.split("not applied; the patch is ")[1].strip())
    assert EDITED in kept.read_text()
    for changes in (f"patch={project.parent / 'out.patch'}", "branch=fix"):
        done = g4agent("run", "x", "--agent", "scripted_agents:mender_lost", "-w", str(project), "--changes", changes)
        assert done.returncode == 11 and "not applied; the patch is " in done.stdout
        assert is_untouched(project) and not (project.parent / "out.patch").exists()


def test_a_failed_check_applies_nothing(g4agent: Command, project: Path) -> None:
    """Headless, the verdict that counts is that of the checks, which see the copy."""
    options = ["--changes", "apply", "--expect", "changes", "--expect", "command:python -c 'raise SystemExit(3)'"]
    done = g4agent(*MENDER, str(project), *options)
    assert done.returncode == 21 and "✓ changes" in done.stdout and is_untouched(project)
    looking = ("run", "x", "--agent", "scripted_agents:looker", "-w", str(project), "--changes", "apply")
    for asked in (["--expect", "changes"], ["--headless"]):
        done = g4agent(*looking, *asked)
        assert done.returncode == 21 and "no file was changed" in done.stdout


def test_events_tell_the_changes_to_programs(g4agent: Command, project: Path) -> None:
    """The diff and what became of it are data, too."""
    done = g4agent(*MENDER, str(project), "--changes", "discard", "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[-2]["type"] == "workspace_changed" and events[-2]["files"] == ["totals.py"]
    assert EDITED in events[-2]["diff"]
    assert events[-1]["type"] == "changes_settled" and events[-1]["action"] == "discard"
    assert is_untouched(project)


def test_an_interrupted_run_is_taken_up_and_its_changes_come_out(
    environment: dict[str, str], g4agent: Command, project: Path
) -> None:
    """Ctrl-C must not lose what was done: the resumed session knows its project, and what it was when it began."""
    command = [*COMMAND, "run", "x", "--agent", "scripted_agents:sleeper", "-w", str(project), "--changes", "apply"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, encoding="utf-8", env=environment, preexec_fn=heed_ctrl_c
    ) as process:
        assert process.stdout is not None
        seen = ""
        while "run_command" not in seen:
            seen += process.stdout.readline()
        process.send_signal(signal.SIGINT)
        seen += process.stdout.read()
    assert is_untouched(project)
    id = seen.split("sessions resume ")[1].strip()
    again = ("sessions", "resume", id, "--agent", "scripted_agents:sleeper_again", "--changes")
    refused = g4agent(*again[:-1])
    assert refused.returncode == 1 and "nobody can be asked" in refused.stderr
    done = g4agent(*again, "apply")
    assert done.returncode == 0 and EDITED in done.stdout
    assert git(project, "status", "--porcelain") == " M totals.py\n"
    done = g4agent("sessions", "resume", id, "More.", *again[3:], "apply")
    assert done.returncode == 0 and "no file was changed" in done.stdout  # what was applied is not shown twice


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nobody can be asked"),
        (["--changes", "patch"], "says not what to do with changes"),
        (["--changes", "apply=x"], "says not what to do with changes"),
        (["--changes", "branch=main"], "there is a branch main already"),
        (["--changes", "patch=/nowhere/x.patch"], "there is no folder for the patch"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_run(
    g4agent: Command, project: Path, options: list[str], message: str
) -> None:
    """Else an hour's work would end in an error."""
    done = g4agent(*MENDER, str(project), *options)
    assert done.returncode == 1 and message in done.stderr and done.stdout == ""


def test_changes_need_a_workspace(g4agent: Command) -> None:
    """A choice that has no effect would be believed."""
    assert "--changes belongs to --workspace" in g4agent("run", "x", "--changes", "apply").stderr


@pytest.mark.parametrize(("answer", "status"), [("y", " M totals.py\n"), ("n", ""), ("", "")])
def test_a_person_decides_by_the_diff(environment: dict[str, str], project: Path, answer: str, status: str) -> None:
    """Shown first, applied only after yes, and never by default."""
    terminal = Terminal(environment, *MENDER, str(project))
    terminal.read_until("[y/N] ")
    assert "return a + b" in terminal.seen and git(project, "status", "--porcelain") == ""
    terminal.type(answer + "\n")
    assert terminal.finish() == 0
    assert git(project, "status", "--porcelain") == status


def test_ctrl_c_at_the_question_keeps_the_patch(environment: dict[str, str], project: Path) -> None:
    """An hour's work must not be lost by a doubt."""
    terminal = Terminal(environment, *MENDER, str(project))
    terminal.read_until("[y/N] ")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.finish() == 130 and is_untouched(project)
    [kept] = Path(environment["G4AGENT_HOME"]).glob("sessions/*/changes.patch")
    assert EDITED in kept.read_text()


def test_a_file_that_changed_meanwhile_is_not_overwritten(environment: dict[str, str], project: Path) -> None:
    """While the person thinks, the file is edited: nothing is applied, and the patch is kept."""
    terminal = Terminal(environment, *MENDER, str(project))
    terminal.read_until("[y/N] ")
    (project / "totals.py").write_text("mine\n")
    terminal.type("y\n")
    assert terminal.finish() == 1
    assert "not as the run found them: totals.py" in terminal.seen and "the patch is " in terminal.seen
    assert (project / "totals.py").read_text() == "mine\n"


def test_nano_mends_a_repository(g4agent: Command, project: Path) -> None:
    """The true path: a real model works on the copy, and its edit arrives in the files. nano knows only such files."""
    git(project, "rm", "-q", ".gitignore")
    agent = Path(__file__).parents[2] / "examples/coding_assistant"
    prompt = "The tests fail. Find the bug and fix it."
    options = ("--workspace", str(project), "--changes", "apply", "--temperature", "0", "--max-steps", "12")
    done = g4agent("run", prompt, "--agent", str(agent), *options)
    assert done.returncode == 0, done.stdout
    assert (project / "totals.py").read_text() == "def add(a, b):\n    return a + b\n"
