"""Commands that only look: help, version, doctor, models."""

from __future__ import annotations

import json
import resource
import subprocess
from pathlib import Path

import pytest
from command_line import COMMAND, Command

from g4agent import __version__

EMPTY_APP = """
import typer
app = typer.Typer()
app.command("a")(lambda: None)
app.command("b")(lambda: None)
app()
"""
MOST_EMPTY_APPS = 2.2
"""Times of such an app's help that ours may take."""


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
    """Processor time of the fastest of five tries, beside that of an app with nothing in it: so neither a busy machine
    nor a slow one matters."""

    def cpu_seconds(*command: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*command, "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    times = [(cpu_seconds(*COMMAND), cpu_seconds(COMMAND[0], "-c", EMPTY_APP)) for _ in range(5)]
    ours, empty = map(min, zip(*times, strict=True))
    assert ours < MOST_EMPTY_APPS * empty


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


def test_tools_are_listed_with_their_effects_and_permissions(g4agent: Command, tmp_path: Path) -> None:
    """A person sees what an agent may do before it does it; a script gets the schemas."""
    rows = [line.split("  ") for line in g4agent("tools").stdout.splitlines()]
    listed = {(row[0], cells[0]): cells[1:] for row in rows if (cells := [cell.strip() for cell in row[1:] if cell])}
    assert listed["coding", "run_tests(path?: string)"][:3] == ["idempotent", "sandbox", "allow"]
    assert listed["coding-full", "undo()"][:3] == ["once", "sandbox", "allow, headless deny"]
    assert listed["postgres", "list_postgres_tables()"][:4] == ["pure", "sandbox", "allow", "POSTGRES_URL"]
    lines = g4agent("tools", "--agent", "scripted_agents:careful", "--json").stdout.splitlines()
    assert [(t["name"], t["effect"], t["where"]) for t in map(json.loads, lines)] == [("pay", "once", "host")]
    assert "amount" in lines[0]
    policy = tmp_path / "policy.toml"
    policy.write_text(
        '[[rule]]\ndecision = "allow"\ntool = "pay"\narguments = { amount = "<= 20" }\n'
        '[[rule]]\ndecision = "deny"\ntool = "p*"\n'
    )
    [line] = g4agent("tools", "-a", "scripted_agents:careful", "--policy", str(policy), "--json").stdout.splitlines()
    assert json.loads(line)["permission"] == "allow or deny"


def test_a_pack_that_cannot_be_loaded_is_said_and_hides_no_other(
    g4agent: Command, tmp_path: Path, environment: dict[str, str]
) -> None:
    """One pack whose library is missing must not take the whole list with it."""
    metadata = tmp_path / "broken-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Name: broken\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[g4agent.tools]\nbroken = no_such_module:tools\n")
    environment["PYTHONPATH"] = str(tmp_path)
    lines = g4agent("tools").stdout.splitlines()
    assert any(line.startswith("broken") and "No module named 'no_such_module'" in line for line in lines)
    assert any(line.startswith("coding ") for line in lines)
