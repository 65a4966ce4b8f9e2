"""`g4agent init`: the project that it writes works as it is, and it harms nothing that is there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from g4agent.errors import ConfigError
from g4agent.scaffold import scaffold, templates

FILES = {
    *("agent.py", "policy.toml", "tasks.jsonl", "test_agent.py", "README.md", ".gitignore"),
    *("workspace/stock.json", ".github/workflows/agent.yml"),
}


def g4agent(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, started in a folder, with a store beside it."""
    return subprocess.run(
        [sys.executable, "-m", "g4agent", *arguments],
        cwd=folder,
        env={**os.environ, "G4AGENT_HOME": f"{folder}.store"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project, made by the command."""
    parent = tmp_path_factory.mktemp("init")
    done = g4agent(parent, "init", "my project")
    assert done.returncode == 0, done.stderr
    folder = parent / "my project"
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == FILES
    assert "  cd 'my project'\n" in done.stdout
    return folder


def test_the_commands_that_init_and_its_readme_name_work(project: Path) -> None:
    """What is printed for the next step is what a newcomer types."""
    said = g4agent(project.parent, "init", "other").stdout
    named = re.findall(r"^ +(g4agent .*)$", said, re.MULTILINE)
    assert len(named) == 2 and all(f"    {command}\n" in (project / "README.md").read_text() for command in named)
    for command in named:
        script = command.replace("g4agent", f"{sys.executable} -m g4agent")
        env = {**os.environ, "G4AGENT_HOME": f"{project}.store"}
        done = subprocess.run(["sh", "-c", script], cwd=project, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
    lines = map(json.loads, (project / "results" / "results.jsonl").read_text().splitlines())
    assert [line["outcome"] for line in lines] == ["done"] * 3


def test_its_policy_holds(project: Path) -> None:
    """More than ten pieces are not ordered; with nobody there, that is a run that did nothing."""
    order = "Please order the product with name chair, quantity 40."
    done = g4agent(project, "run", "--headless", order, "--agent", ".", "--json")
    assert done.returncode == 19, done.stderr
    assert '"kind": "denied"' in done.stdout and "permission denied" in done.stdout


def test_its_own_tests_pass(project: Path) -> None:
    """They are what a user writes more of."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout


def test_git_ignores_what_the_commands_write(project: Path) -> None:
    """Results and stores in a repository would be noise, and might hold what was said."""
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    written = ["results/junit.xml", "g4agent.db", "g4agent.db-wal", "__pycache__/agent.pyc"]
    done = subprocess.run(["git", "check-ignore", *written], cwd=project, capture_output=True, text=True)
    assert done.stdout.split() == written


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A second `init`, or one in a project of the user's own, writes no file at all and names what is in the way."""
    (tmp_path / "agent.py").write_text("mine")
    (tmp_path / "policy.toml").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"has agent\.py, policy\.toml already; nothing was written"):
        scaffold(tmp_path)
    assert (tmp_path / "agent.py").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agent.py", "policy.toml"]
    done = g4agent(tmp_path, "init")
    assert done.returncode == 1
    assert "error: . has agent.py, policy.toml already; nothing was written\n" in done.stderr


def test_a_folder_that_cannot_be_is_explained(tmp_path: Path) -> None:
    """A file where the folder should go is no bug of ours."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written to"):
        scaffold(tmp_path / "file" / "project")


def test_the_templates_are_the_files_of_the_project() -> None:
    """A file that a test run leaves among the templates must not go into users' projects."""
    assert templates().keys() == FILES
