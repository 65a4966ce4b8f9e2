"""nano buys, cancels and returns in the sandbox while its process is killed: the end state is that of a calm run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "kill_points.py"


def killed(*options: str, timeout: float) -> dict[str, int]:
    """The counts of one run of the script; a process of its own, because it forks with a model in memory."""
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[2] / "examples")}
    command = [sys.executable, str(SCRIPT), *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stdout + done.stderr
    counts: dict[str, int] = json.loads(done.stdout)
    assert counts["kills"] >= counts["points"] and counts["unreadable"] == counts["other end state"] == 0
    return counts


@pytest.mark.parametrize("cut", [[], ["--cut"]], ids=["killed", "power lost"])
def test_a_few_points(cut: list[str]) -> None:
    """Money moved twice, an order lost, or a session that nobody can take up again would show here."""
    assert killed("--points", "3", "--seed", "5", *cut, timeout=280)["points"] == 3


@pytest.mark.slow
@pytest.mark.parametrize(("cut", "points"), [([], 200), (["--cut"], 60)], ids=["killed", "power lost"])
def test_many_points(cut: list[str], points: int) -> None:
    """The same at 200 points, and at 60 with the end of the store's log lost."""
    assert killed("--points", str(points), *cut, timeout=7200)["points"] == points
