"""`g4agent run` and `chat` as programs see them: output, exit codes, errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from command_line import Command
from scripted_agents import HOSTILE

from g4agent.cli.drive import reported_errors
from g4agent.errors import ConfigError


def test_a_run_on_a_pipe_is_told_in_plain_lines(g4agent: Command) -> None:
    """Guards the story itself: call, result, error, thought, answer and verdict, each on its line, without colour."""
    done = g4agent("run", "What is 1 + 2?", "--agent", "scripted_agents:adder")
    assert done.returncode == 0
    *story, verdict = done.stdout.splitlines()
    assert story == [
        "→ add(a=1, b=2)",
        "← add: 3",
        '→ add(a=3, b="x")',
        "→ subtract(a=1)",
        '✗ add: b: expected an integer, got "x". Expected: add(a: integer, b: integer)',
        "✗ subtract: there is no tool called subtract; the tools are: add",
        "thought: One and two",
        "make three.",
        "It is 3.",
    ]
    assert verdict.startswith("done · 3 steps · ")
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


def test_verbose_shows_what_the_story_leaves_out(g4agent: Command) -> None:
    """Where a tool runs, and each step's usage, must be there for those who ask."""
    done = g4agent("run", "x", "--agent", "scripted_agents:adder", "-v")
    assert "  add runs on the host" in done.stdout
    assert done.stdout.startswith("session ")


def test_json_prints_events_and_nothing_else(g4agent: Command) -> None:
    """A program reads every line of stdout as an event; one stray line would break it."""
    done = g4agent("run", "x", "--agent", "scripted_agents:adder", "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [events[0]["type"], events[-1]["type"]] == ["run_started", "run_finished"]
    assert events[-1]["answer"] == "It is 3."
    assert sum(e["type"] == "tool_finished" for e in events) == 3


def test_the_log_goes_beside_the_story(g4agent: Command, tmp_path: Path) -> None:
    """A service ships the file; what people see on the terminal stays as it was, and a second run is appended."""
    log = tmp_path / "logs" / "runs.jsonl"
    for _ in range(2):
        done = g4agent("run", "What is 1 + 2?", "--agent", "scripted_agents:adder", "--log", str(log))
        assert done.returncode == 0 and "It is 3." in done.stdout and done.stderr == ""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["event"] for line in lines].count("run_finished") == 2
    assert all(line["time"].endswith("+00:00") and "What is" not in json.dumps(line) for line in lines)


def test_untrusted_text_cannot_control_the_terminal(g4agent: Command) -> None:
    """Escape sequences, C1 controls, carriage returns, direction overrides and markup of a model stay visible text."""
    done = g4agent("run", "x", "--agent", "scripted_agents:hostile")
    assert not {c for c in done.stdout if not c.isprintable()} - {"\n"}
    assert "␛]0;owned␇␛[2J\\x9b31m [bold red]markup[/] \\u202ereversed ␍ over" in done.stdout
    assert HOSTILE not in g4agent("sessions", "list").stdout


def test_a_bad_run_is_not_green(g4agent: Command) -> None:
    """A run whose every call fails must not exit with 0."""
    done = g4agent("run", "x", "--agent", "scripted_agents:lost")
    assert done.returncode == 11
    assert "too_many_errors (every call failed in 3 steps in a row)" in done.stdout


def test_the_step_budget_of_the_command_line_holds(g4agent: Command) -> None:
    """`--max-steps` must reach the planner, and the verdict the exit code."""
    done = g4agent("run", "x", "--agent", "scripted_agents:adder", "--max-steps", "1")
    assert done.returncode == 10
    assert "go on with: g4agent sessions resume " in done.stdout


def test_errors_are_messages_with_a_hint(g4agent: Command) -> None:
    """Nobody should have to read a traceback to learn that a path is wrong; -v shows it all the same."""
    done = g4agent("run", "x", "--agent", "no/such/folder")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: no agent at 'no/such/folder'")
    assert "  Name a folder that holds an agent.py" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in g4agent("run", "x", "--agent", "no/such/folder", "-v").stderr


def test_an_error_in_mid_run_is_reported_too(g4agent: Command) -> None:
    """An error raised inside the event loop, in task groups, must come out as the same short message."""
    done = g4agent("run", "x", "--agent", "scripted_agents:broken")
    assert done.returncode == 1
    assert done.stderr == "error: the script is over\n  Add a reply to the ScriptedModel's script.\n"


def test_unknown_limits_are_refused(g4agent: Command) -> None:
    """A misspelt `--allow-degraded` must not be taken for one that was obeyed."""
    done = g4agent("run", "x", "--agent", "scripted_agents:adder", "--allow-degraded", "memry")
    assert done.returncode == 1
    assert "The limits are: memory, processes" in done.stderr


def test_without_a_terminal_nobody_is_asked(g4agent: Command) -> None:
    """A call that needs approval is denied, not waited for: a run in CI must not hang."""
    done = g4agent("run", "x", "--agent", "scripted_agents:careful", stdin="y\n")
    assert "✗ pay: pay was not approved" in done.stdout


def test_chat_reads_prompts_from_a_pipe(g4agent: Command) -> None:
    """Each line is a turn of one session; blank lines are none, `/quit` ends it, and a failed turn is remembered."""
    done = g4agent("chat", "--agent", "scripted_agents:two_turns", stdin="first\n\nsecond\n/quit\nthird\n")
    assert "Second answer." in done.stdout
    assert done.stdout.count(" · session ") == 2
    assert "third" not in g4agent("sessions", "show", done.stdout.split()[-1]).stdout
    assert done.returncode == 12


def test_an_error_of_a_task_group_is_unwrapped(capsys: pytest.CaptureFixture[str]) -> None:
    """The words "unhandled errors in a TaskGroup (1 sub-exception)" would help nobody."""
    with pytest.raises(typer.Exit), reported_errors(verbose=False):
        raise ExceptionGroup("group", [ExceptionGroup("inner", [ConfigError("wrong", hint="Mend it.")])])
    assert capsys.readouterr().err == "error: wrong\n  Mend it.\n"
