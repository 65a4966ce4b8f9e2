"""Runs the real command in a process of its own, with a store of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from command_line import COMMAND, Command


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment with a fresh store in which `scripted_agents` can be imported; nothing forces colours."""
    colours = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
    kept = {name: value for name, value in os.environ.items() if name not in colours}
    return kept | {"G4AGENT_HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parent), "TERM": "xterm-256color"}


@pytest.fixture
def g4agent(environment: dict[str, str]) -> Command:
    """`g4agent("run", "…", stdin="")` gives the finished process with its output as text."""

    def run(*args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *args], input=stdin, capture_output=True, encoding="utf-8", env=environment, timeout=120
        )

    return run
