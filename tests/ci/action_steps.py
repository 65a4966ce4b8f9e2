"""Runs `action.yml` without GitHub."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DRY = {"PIP_DRY_RUN": "1", "PIP_NO_BUILD_ISOLATION": "0"}
"""Has pip build and resolve the package and install nothing; the 0 says no isolation."""


def environment(home: Path, **more: str) -> dict[str, str]:
    """A server's environment: this environment's programs first, a store of its own, nothing really installed."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "G4AGENT_HOME": str(home), **DRY, **more}


def run_action(
    home: Path, inputs: dict[str, str], only: str | None = None, folder: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Runs the steps of `action.yml` in a folder as GitHub's runner does, up to the first that fails."""
    action: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
    values = {name: inputs.get(name, field.get("default", "")) for name, field in action["inputs"].items()}
    assert inputs.keys() <= action["inputs"].keys()
    for step in action["runs"]["steps"]:
        if only is not None and step["name"] != only:
            continue
        env = {name: values[text[len("${{ inputs.") : -len(" }}")]] for name, text in step["env"].items()}
        known = {"GITHUB_ACTION_PATH": str(ROOT), "GITHUB_STEP_SUMMARY": str(home / "summary.md")}
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=folder,
            env=environment(home, **known, **env),
            capture_output=True,
            text=True,
            timeout=300,
        )
        if done.returncode:
            break
    return done
