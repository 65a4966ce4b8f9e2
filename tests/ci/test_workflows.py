"""The GitHub action and the GitLab job: their own shell steps, run as the servers do, with nano in the sandbox."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import xmlschema
import yaml
from action_steps import ROOT, environment, run_action

XSD = ROOT / "tests" / "headless" / "junit-10.xsd"
SHOP = "examples/retail_checkout"


def results(folder: Path) -> dict[str, str]:
    lines = map(json.loads, (folder / "results.jsonl").read_text().splitlines())
    return {line["id"]: line["outcome"] for line in lines}


def test_the_action_runs_the_retail_tasks(tmp_path: Path) -> None:
    """What the README promises to CI: real model, real sandbox, exit code, JUnit and the job's summary."""
    out = tmp_path / "out"
    inputs = {
        "agent": SHOP,
        "tasks": f"{SHOP}/ci/tasks.jsonl",
        "policy": f"{SHOP}/ci/policy.toml",
        "arguments": "--temperature 0",
        "results": str(out),
        "jobs": "2",
    }
    done = run_action(tmp_path, inputs)
    assert done.returncode == 0, done.stderr
    assert set(results(out).values()) == {"done"} and len(results(out)) == 4
    xmlschema.validate(out / "junit.xml", XSD)
    assert "## 4 of 4 runs succeeded" in (tmp_path / "summary.md").read_text()


def test_the_action_is_red_where_the_work_was_not_done(tmp_path: Path) -> None:
    """Without a policy the check-out is denied, small talk calls nothing, and a wrong expectation fails."""
    tasks, out = tmp_path / "tasks.jsonl", tmp_path / "out"
    (buy, *_) = map(json.loads, (ROOT / SHOP / "ci" / "tasks.jsonl").read_text().splitlines())
    lines = [
        {**buy, "id": "denied"},
        {"id": "nothing", "prompt": "Hello! What can you do for me?"},
        {"id": "failing", "prompt": "What is the status of order W82447?", "seed": 3, "expect": ["file:report.md"]},
    ]
    tasks.write_text("".join(json.dumps(line) + "\n" for line in lines))
    inputs = {"agent": SHOP, "tasks": str(tasks), "arguments": "--temperature 0", "results": str(out)}
    done = run_action(tmp_path, inputs, only="Run")
    assert done.returncode == 22
    outcomes = results(out)
    assert outcomes["denied"] in ("check_failed", "denied", "stuck", "budget"), outcomes
    assert (outcomes["nothing"], outcomes["failing"]) == ("nothing_done", "check_failed")
    xmlschema.validate(out / "junit.xml", XSD)
    assert "## 0 of 3 runs succeeded" in (tmp_path / "summary.md").read_text()


@pytest.mark.parametrize("file", ["examples/ci/gitlab-ci.yml"])
def test_the_gitlab_job_is_green_and_then_has_nothing_left_to_do(file: str, tmp_path: Path) -> None:
    """Its script is run as it stands, in a folder that looks like a user's project; a retry does nothing twice."""
    job = yaml.safe_load((ROOT / file).read_text())["agent"]
    (tmp_path / "agent.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'examples')!r})\nfrom retail_checkout.agent import agent\n"
    )
    (tmp_path / "policy.toml").write_text((ROOT / SHOP / "ci" / "policy.toml").read_text())
    task = {"id": "status", "prompt": "What is the status of order W82447?", "seed": 3}
    (tmp_path / "tasks.jsonl").write_text(json.dumps(task) + "\n")
    script = "\n".join(job["script"]).replace('"g4agent[', f'"{ROOT}[')  # the package as it is here
    for _ in range(2):
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", script],
            cwd=tmp_path,
            env=environment(tmp_path, **job["variables"]),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
    folder = tmp_path / job["variables"]["RESULTS"]
    assert results(folder) == {"status": "done"} and job["artifacts"]["paths"] == [folder.name]
    assert (tmp_path / job["artifacts"]["reports"]["junit"]).exists()
