"""The workflow of `g4agent init`: its steps and the action's, in a fresh project, with nano in the sandbox."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml
from action_steps import environment, run_action

from g4agent.scaffold import scaffold
from g4agent_bubblewrap import sandbox


def run_step(step: dict[str, Any], project: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """One step of the job: the action with its inputs, or a shell script."""
    if step.get("uses", "").startswith("OWNER/g4agent@"):
        return run_action(home, step["with"], folder=project)
    env = environment(home)
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        cwd=project,
        env={**env, "PATH": f"{home}:{env['PATH']}"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_every_step_is_green_and_the_results_are_where_they_are_kept_from(tmp_path: Path) -> None:
    """A new user's first push must not be red. `sudo` only notes what it is told: our own kernel is left alone."""
    project, home = tmp_path / "project", tmp_path / "home"
    home.mkdir()
    (home / "sudo").write_text(f'#!/bin/sh\necho "$@" > {home}/asked\n')
    (home / "sudo").chmod(0o755)
    scaffold(project)
    workflow = yaml.safe_load((project / ".github/workflows/agent.yml").read_text())
    steps = [step for step in workflow["jobs"]["agent"]["steps"] if not step.get("uses", "").startswith("actions/")]
    assert [step["name"] for step in steps] == ["Let the sandbox make namespaces", "Run the tasks", "Test"]
    for step in steps:
        done = run_step(step, project, home)
        assert done.returncode == 0, f"{step['name']}:\n{done.stdout}{done.stderr}"
    asked = (home / "asked").read_text().split()
    assert asked[:2] == ["sysctl", "-w"]
    name, value = asked[2].split("=")
    assert Path("/proc/sys", *name.split(".")) == sandbox.APPARMOR_SWITCH and value == "0"
    (keep,) = (s for s in workflow["jobs"]["agent"]["steps"] if s.get("uses", "").startswith("actions/upload-artifact"))
    lines = map(json.loads, (project / keep["with"]["path"] / "results.jsonl").read_text().splitlines())
    assert {line["id"]: line["outcome"] for line in lines} == {"lamp": "done", "chair": "done", "order": "done"}
