"""Commands that only look: help, version, doctor, models."""

from __future__ import annotations

import json
import resource
import subprocess
from pathlib import Path

import pytest
from command_line import COMMAND, Command

from g4agent import __version__

HELP_CPU_SECONDS = 0.4


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["sessions", "--help"]])
def test_help_loads_nothing_heavy(g4agent: Command, arguments: list[str]) -> None:
    """Help must come at once: the database, torch and the agent itself stay unloaded."""
    done = subprocess.run(
        [COMMAND[0], "-X", "importtime", *COMMAND[1:], *arguments], capture_output=True, encoding="utf-8"
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "g4agent.cli.app" in loaded
    assert not loaded & {"torch", "transformers", "sqlalchemy", "sqlmodel", "g4agent.agent", "jsonschema"}


def test_help_is_fast() -> None:
    """Processor time of the fastest of three tries, so that a busy machine does not matter."""

    def cpu_seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*COMMAND, "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(cpu_seconds() for _ in range(3)) < HELP_CPU_SECONDS


def test_version(g4agent: Command) -> None:
    """`--version` and the package agree."""
    assert g4agent("--version").stdout == f"g4agent {__version__}\n"


def test_doctor_reports_every_part(g4agent: Command) -> None:
    """Its JSON is what a script checks: all parts are there, and `ok` agrees with the exit code."""
    done = g4agent("doctor", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == (0 if report["ok"] else 1)
    subjects = {finding["subject"] for finding in report["findings"]}
    expected = {"python", "extra torch", "runtime torch", "sandbox bubblewrap", "store", "memory", "processor"}
    assert subjects >= expected
    assert all(f["hint"] for f in report["findings"] if f["status"] == "failed")


def test_doctor_says_what_a_broken_store_needs(g4agent: Command, environment: dict[str, str]) -> None:
    """A store that cannot be opened makes runs impossible: exit code 1, and a hint."""
    Path(environment["G4AGENT_HOME"], "g4agent.db").write_text("not a database " * 100)
    done = g4agent("doctor")
    assert done.returncode == 1
    assert "is not a database" in done.stdout
    assert "Agents cannot run here yet." in done.stdout


def test_models_are_listed_with_their_needs(g4agent: Command) -> None:
    """Every model of the runtime's catalog is there, beside this machine's memory."""
    lines = g4agent("models").stdout.splitlines()
    assert lines[1].startswith("nano ")
    assert any(line.startswith("google/gemma-4-E4B-it ") for line in lines)
    assert "This machine: " in lines[-1]


def test_tools_are_listed_with_their_effects_and_places(g4agent: Command) -> None:
    """A person sees what an agent may do before it does it; a script gets the schemas."""
    lines = g4agent("tools").stdout.splitlines()
    assert any(
        line.startswith("coding") and "run_tests(path?: string)" in line and "idempotent" in line for line in lines
    )
    lines = g4agent("tools", "--agent", "scripted_agents:careful", "--json").stdout.splitlines()
    assert [(t["name"], t["effect"], t["where"]) for t in map(json.loads, lines)] == [("pay", "once", "host")]
    assert "amount" in lines[0]
