"""The lines of `--json` are what docs/events.schema.json and docs/events.md say."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from command_line import COMMAND, Command
from jsonschema import Draft202012Validator

from g4agent.events import EVENT_SCHEMA_VERSION, Event, NetworkAttempt, PagesLost, to_json

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs/events.schema.json").read_text())
RUNS = [
    ("adder", ()),
    ("hostile", ()),
    ("lost", ()),
    ("careful", ("--headless",)),
    ("boxed", ("--headless", "--expect", "file:out.txt", "--expect", "command:no-such-program")),
    ("adder", ("--max-steps", "1")),
    ("sloppy", ()),
]


def validated(output: str) -> list[dict[str, Any]]:
    """The lines, each of which is what the schema says and has no field that the schema does not know."""
    Draft202012Validator.check_schema(SCHEMA)
    validator = Draft202012Validator(SCHEMA)
    parts = {part["properties"]["type"]["const"]: part for part in SCHEMA["$defs"].values() if _is_event(part)}
    events = [json.loads(line) for line in output.splitlines()]
    for event in events:
        validator.validate(event)
        assert event.keys() == parts[event["type"]]["properties"].keys()
    return events


def _is_event(part: dict[str, Any]) -> bool:
    return "const" in part.get("properties", {}).get("type", {})


def test_the_schema_is_current(tmp_path: Path) -> None:
    """`python scripts/make_event_schema.py` was forgotten."""
    made = tmp_path / "events.schema.json"
    subprocess.run([sys.executable, str(ROOT / "scripts/make_event_schema.py"), str(made)], check=True)
    assert made.read_text() == (ROOT / "docs/events.schema.json").read_text()


def test_the_page_names_every_event_and_field() -> None:
    """What stands in no table is not found."""
    rows = re.findall(r"^\| `(\w+)` \|.*\|([^|]*)\|$", (ROOT / "docs/events.md").read_text(), re.MULTILINE)
    fields = {kind: re.findall(r"`(\w+)`", cell) for kind, cell in rows if kind != "type"}
    assert fields == {kind.type: [f.name for f in dataclasses.fields(kind)] for kind in get_args(Event)}


@pytest.mark.parametrize(("agent", "options"), RUNS)
def test_lines_of_runs_are_what_the_schema_says(g4agent: Command, agent: str, options: tuple[str, ...]) -> None:
    """A program that reads them by the schema must never meet a line that it cannot read."""
    done = g4agent("run", "x", "--agent", f"scripted_agents:{agent}", "--json", *options)
    first, *_, last = validated(done.stdout)
    assert (first["type"], first["schema"]) == ("run_started", EVENT_SCHEMA_VERSION)
    assert last["type"] == ("run_judged" if "--headless" in options else "run_finished")


def test_lines_of_a_run_on_a_copy_are_what_the_schema_says(g4agent: Command, tmp_path: Path) -> None:
    """The changes have lines of their own, after the run's."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "totals.py").write_text("def add(a, b):\n    return a - b\n")
    options = ("--workspace", str(project), "--changes", "discard", "--json")
    done = g4agent("run", "x", "--agent", "scripted_agents:mender", *options)
    assert [event["type"] for event in validated(done.stdout)][-2:] == ["workspace_changed", "changes_settled"]


def test_lines_of_nano_are_what_the_schema_says(g4agent: Command) -> None:
    """A true model's run has call deltas, signals and usage, which no script has."""
    shop = str(ROOT / "examples/retail_checkout")
    prompt = "I am mia.smith@example.com. What is the status of order W12345?"
    done = g4agent(
        "run", prompt, "--agent", shop, "--model", "nano", "--temperature", "0", "--max-steps", "2", "--json"
    )
    events = validated(done.stdout)
    assert {"call_delta", "call_ready", "tool_started", "tool_finished"} <= {event["type"] for event in events}
    assert any(event.get("signals") for event in events)


def test_lines_of_a_run_that_obeys_orders_are_what_the_schema_says(
    environment: dict[str, str], g4agent: Command
) -> None:
    """Pause, resume and say have lines of their own."""
    run = [*COMMAND, "run", "x", "--agent", "scripted_agents:patient", "--json"]
    with subprocess.Popen(run, stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        session = json.loads(lines[0])["session_id"]
        while "tool_started" not in lines[-1]:
            lines.append(process.stdout.readline())
        for order in (["pause"], ["say", "Hurry up"]):
            assert g4agent("ctl", session, *order).returncode == 0
        while "run_paused" not in lines[-1]:
            lines.append(process.stdout.readline())
        assert g4agent("ctl", session, "resume").returncode == 0
        rest = process.communicate(timeout=30)[0]
    kinds = [event["type"] for event in validated("".join(lines) + rest)]
    assert {"run_paused", "run_continued", "user_spoke"} <= set(kinds)


def test_rare_lines_are_what_the_schema_says() -> None:
    """They need a proxy and a server, or a damaged disk; all other events come about in the runs above."""
    validated(json.dumps(to_json(NetworkAttempt("example.org", 443, False, "not allowed"))))
    validated(json.dumps(to_json(PagesLost("A page file of 128 tokens was damaged"))))
