"""The coding assistant's projects and their judge."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
from coding_assistant.agent import POLICY, agent, workspace
from coding_assistant.evaluate import run_task
from coding_assistant.tasks import TASKS, Judgement, Task, check

from g4agent.registry import load_agent
from g4agent.testing import ScriptedModel, call, say
from g4agent_coding.testing import report_tests


def report(files: Mapping[str, bytes], folder: Path) -> dict[str, Any]:
    for path, data in files.items():
        (folder / path).write_bytes(data)
    with chdir(folder):
        return report_tests(".", 2.0)  # one project hangs until it is mended


def mended(task: Task) -> dict[str, bytes]:
    """The workspace after the oracle's edit."""
    files = dict(task.workspace())
    text = files[task.oracle.path].decode()
    assert text.count(task.oracle.old) == 1
    return files | {task.oracle.path: text.replace(task.oracle.old, task.oracle.new).encode()}


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_each_project_fails_at_first_and_passes_when_mended(task: Task, tmp_path: Path) -> None:
    """A project that passes untouched, or whose oracle does not help, measures nothing."""
    before = task.workspace()
    assert not check(task, before, report(before, tmp_path)).passed
    after = mended(task)
    assert check(task, after, report(after, tmp_path)) == Judgement(True)


def test_changing_the_tests_is_not_a_fix() -> None:
    """The easiest way to make tests pass must not count, nor a module that hides the real one."""
    task = TASKS[0]
    good = {"passed": 2, "failed": 0, "output": ""}
    easy = task.workspace() | {task.tests()[0]: b"import unittest\n"}
    assert check(task, easy, good) == Judgement(False, "test_totals.py was changed")
    without = {path: data for path, data in task.workspace().items() if path not in task.tests()}
    assert not check(task, without, good).passed
    assert check(task, mended(task) | {"unittest.py": b""}, good) == Judgement(False, "files were added: unittest.py")


def test_the_agent_is_loaded_from_its_folder() -> None:
    """`g4agent run --agent examples/coding_assistant` finds it, with a broken project in its workspace."""
    loaded = load_agent(str(Path(__file__).parents[2] / "examples" / "coding_assistant"))
    assert loaded is agent and len(POLICY.split()) <= 40
    assert workspace(0) == TASKS[0].workspace() == workspace(len(TASKS))


@pytest.mark.anyio
async def test_a_project_is_mended_and_judged_in_the_sandbox() -> None:
    """The evaluation's own path: tools in a real box, and the deciding tests run there too."""
    task = TASKS[0]
    script = [
        call("list_files"),
        call("run_tests"),
        call("read_file", path=task.oracle.path),
        call("edit_file", path=task.oracle.path, old=task.oracle.old, new=task.oracle.new),
        call("run_tests"),
        say("It subtracted instead of adding."),
    ]
    model = ScriptedModel(script)
    assert await run_task(agent.replace(model=model, store=False), task) == Judgement(True)
    model.assert_complete()
