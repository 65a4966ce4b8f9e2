"""Headless runs and batches as CI sees them: exit codes, reports, honesty, signals."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
import xmlschema
from command_line import COMMAND, Command, heed_ctrl_c

XSD = Path(__file__).parents[1] / "headless" / "junit-10.xsd"
"""The schema of Jenkins' xUnit plugin, as pytest's source distribution has it."""


def outcome(done: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    """Exit code and outcome of the last event, which must agree."""
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["type"] == "run_judged" and last["exit_code"] == done.returncode
    return done.returncode, last["verdict"]["outcome"]


@pytest.mark.parametrize(
    ("agent", "options", "expected"),
    [
        ("boxed", [], (0, "done")),
        ("boxed", ["--expect", "file:out.txt", "--expect", "changes"], (0, "done")),
        ("boxed", ["--expect", "command:grep -q hello out.txt"], (0, "done")),
        ("boxed", ["--expect", "command:grep -q bye out.txt"], (21, "check_failed")),
        ("boxed", ["--expect", "file:other.txt"], (21, "check_failed")),
        ("boxed", ["--expect", "command:no-such-program"], (21, "check_failed")),
        ("adder", ["--expect", "changes"], (21, "check_failed")),
        ("liar", [], (20, "nothing_done")),
        ("lost", [], (11, "too_many_errors")),
        ("careful", [], (17, "awaiting_approval")),
        ("only_looked", [], (19, "denied")),
        ("adder", ["--max-steps", "1"], (10, "budget")),
    ],
)
def test_only_what_is_shown_counts_as_done(
    g4agent: Command, agent: str, options: list[str], expected: tuple[int, str]
) -> None:
    """A green job whose agent did nothing, was not allowed to, or left the check red would be a lie."""
    done = g4agent("run", "x", "--agent", f"scripted_agents:{agent}", "--headless", "--json", *options)
    assert outcome(done) == expected, done.stderr


def test_everything_denied_is_not_done(g4agent: Command, tmp_path: Path) -> None:
    """What cannot be undone needs a rule where nobody watches; with it, the same run succeeds."""
    none, allowed = tmp_path / "none.toml", tmp_path / "allowed.toml"
    none.write_text("")
    allowed.write_text('[[rule]]\ndecision = "allow"\ntool = "pay"\narguments = { amount = "<= 5" }\n')
    run = ("run", "x", "--agent", "scripted_agents:careful", "--headless", "--json", "--policy")
    assert outcome(g4agent(*run, str(none))) == (19, "denied")
    assert outcome(g4agent(*run, str(allowed))) == (0, "done")


def test_answers_are_checked_by_schema_and_by_python(g4agent: Command, tmp_path: Path) -> None:
    """The two checks that look at more than files."""
    schema, code = tmp_path / "answer.json", tmp_path / "checks.py"
    schema.write_text('{"required": ["written"], "properties": {"written": {"minimum": 6}}}')
    code.write_text(
        "def good(report, files):\n    assert files == {'out.txt': b'hello'} and report.calls[0].name == 'write'\n"
        "def bad(report, files):\n    return f'{len(files)} files'\n"
    )
    run = ("run", "x", "--agent", "scripted_agents:boxed", "--json", "--expect")
    failed = g4agent(*run, f"schema:{schema}")
    assert outcome(failed) == (21, "check_failed") and "less than the minimum of 6" in failed.stdout
    assert outcome(g4agent(*run, f"python:{code}:good")) == (0, "done")
    assert "1 files" in g4agent(*run, f"python:{code}:bad").stdout


@pytest.mark.parametrize("check", ["file", "file:", "commando:x", "schema:none.json", "python:none.py:f", "changes:x"])
def test_a_check_that_means_nothing_is_refused_before_the_run(g4agent: Command, check: str) -> None:
    """A misspelt check that was passed over would make any run a success."""
    done = g4agent("run", "x", "--agent", "scripted_agents:adder", "--expect", check)
    assert done.returncode == 1 and done.stdout == "" and done.stderr.startswith("error: ")


def test_reports_are_what_ci_servers_read(g4agent: Command, tmp_path: Path) -> None:
    """An invalid JUnit file is shown by no CI server; a summary with the model's own Markdown could say anything."""
    junit, summary = tmp_path / "out" / "junit.xml", tmp_path / "out" / "summary.md"
    reports = ("--junit", str(junit), "--summary", str(summary))
    for agent, expect in (("boxed", "file:none"), ("hostile", "changes"), ("liar", "changes"), ("lost", "changes")):
        done = g4agent("run", "x", "--agent", f"scripted_agents:{agent}", "--expect", expect, *reports)
        assert done.returncode != 0
        xmlschema.validate(junit, XSD)
        suite = ElementTree.parse(junit).getroot()[0]
        assert suite.get("failures") != "0"
    text = summary.read_text()
    assert text.count("## 0 of 1 runs succeeded") == 4 and "❌ check_failed" in text
    assert "g4agent sessions show" in text


def test_errors_are_reported_too(g4agent: Command, tmp_path: Path) -> None:
    """A model that cannot be loaded must turn the job red in the report as well, as an error and not as a failure."""
    junit = tmp_path / "junit.xml"
    done = g4agent("run", "x", "--model", str(tmp_path), "--junit", str(junit))
    assert done.returncode == 14
    xmlschema.validate(junit, XSD)
    assert ElementTree.parse(junit).getroot()[0].get("errors") == "1"


def test_the_prompt_may_come_from_a_file_or_a_pipe(g4agent: Command, tmp_path: Path) -> None:
    """Tasks in CI are files; none, two, or an unreadable one is an error."""
    file = tmp_path / "task.md"
    file.write_text("What is 1 + 2?\n")
    agent = ("--agent", "scripted_agents:adder", "--headless", "--json")
    started = json.loads(g4agent("run", "--task-file", str(file), *agent).stdout.splitlines()[0])
    assert started["prompt"] == "What is 1 + 2?"
    assert json.loads(g4agent("run", "--task-file", "-", *agent, stdin="Hi").stdout.splitlines()[0])["prompt"] == "Hi"
    for wrong in (["x", "--task-file", str(file)], [], ["--task-file", str(tmp_path / "none")]):
        assert g4agent("run", *wrong, *agent).returncode == 1


def test_sigterm_ends_a_run_that_can_go_on(environment: dict[str, str], g4agent: Command, tmp_path: Path) -> None:
    """CI servers end a job with SIGTERM and kill it some seconds later: the report and the session must be there."""
    junit = tmp_path / "junit.xml"
    run = [*COMMAND, "run", "x", "--agent", "scripted_agents:waiter", "--headless", "--json", "--junit", str(junit)]
    process = subprocess.Popen(run, stdout=subprocess.PIPE, env=environment, preexec_fn=heed_ctrl_c, text=True)
    assert process.stdout is not None
    while "tool_started" not in process.stdout.readline():
        pass
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    rest = process.communicate(timeout=20)[0]
    assert process.returncode == 130 and time.monotonic() - began < 5
    assert json.loads(rest.splitlines()[-1])["verdict"]["outcome"] == "interrupted"
    xmlschema.validate(junit, XSD)
    (line,) = g4agent("sessions", "list").stdout.splitlines()[1:]
    assert "interrupted" in line
    resumed = g4agent("sessions", "resume", line.split()[0], "--agent", "scripted_agents:waiter_again")
    assert resumed.returncode == 0 and "Gone on." in resumed.stdout


def test_a_question_is_answered_from_another_terminal(g4agent: Command) -> None:
    """`approve` lists, answers once, and the resumed run does what was asked about."""
    asked = g4agent("run", "x", "--agent", "scripted_agents:careful", "--headless")
    (row,) = g4agent("approve").stdout.splitlines()[1:]
    question = row.split()[0]
    assert f"answer with: g4agent approve {question}" in asked.stdout
    assert g4agent("approve", question).stdout.startswith("approved: pay(amount=5)")
    assert g4agent("approve", question, "--deny").returncode == 16
    assert g4agent("approve").stdout.splitlines()[1:] == []
    session = question.rpartition("-")[0]
    resumed = g4agent("sessions", "resume", session)
    assert '← pay: "paid 5"' in resumed.stdout


def test_a_running_session_obeys(environment: dict[str, str], g4agent: Command) -> None:
    """`ctl` reaches the process that drives the session; where none does, it says so."""
    run = [*COMMAND, "run", "x", "--agent", "scripted_agents:patient", "--json"]
    process = subprocess.Popen(run, stdout=subprocess.PIPE, env=environment, text=True)
    assert process.stdout is not None
    session = json.loads(process.stdout.readline())["session_id"]
    while "tool_started" not in process.stdout.readline():
        pass
    assert g4agent("ctl", session, "pause").returncode == 0
    assert g4agent("ctl", session, "say", "Hurry up").returncode == 0
    while "run_paused" not in process.stdout.readline():
        pass
    assert g4agent("ctl", session, "resume").returncode == 0
    events = [json.loads(line)["type"] for line in process.communicate(timeout=30)[0].splitlines()]
    assert events[:2] == ["run_continued", "user_spoke"] and events[-1] == "run_finished"
    assert "> Hurry up" in g4agent("sessions", "show", session).stdout
    late = g4agent("ctl", session, "stop")
    assert late.returncode == 1 and "is not running" in late.stderr
    assert "there is no order 'halt'" in g4agent("ctl", session, "halt").stderr


def test_an_ordered_stop_ends_a_call_in_the_middle(environment: dict[str, str], g4agent: Command) -> None:
    """A tool that takes an hour must not delay the stop by an hour."""
    run = [*COMMAND, "run", "x", "--agent", "scripted_agents:waiter", "--json"]
    process = subprocess.Popen(run, stdout=subprocess.PIPE, env=environment, text=True)
    assert process.stdout is not None
    session = json.loads(process.stdout.readline())["session_id"]
    while "tool_started" not in process.stdout.readline():
        pass
    assert g4agent("ctl", session, "stop").returncode == 0
    process.communicate(timeout=10)
    assert process.returncode == 130


def test_a_batch_goes_on_where_it_was_stopped(environment: dict[str, str], g4agent: Command, tmp_path: Path) -> None:
    """What is done is not done again, what was begun is gone on with, and one failure does not stop the others."""
    tasks, out = tmp_path / "tasks.jsonl", tmp_path / "out"
    lines = [{"id": f"t{i}", "prompt": f"Task {i}"} for i in range(3)]
    tasks.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    run = ["batch", str(tasks), "--agent", "scripted_agents:one_by_one", "--out", str(out)]
    process = subprocess.Popen(
        [*COMMAND, *run], stderr=subprocess.PIPE, env=environment, preexec_fn=heed_ctrl_c, text=True
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "[1/3] t0: done\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 130
    xmlschema.validate(out / "junit.xml", XSD)
    with (out / "results.jsonl").open("a") as torn:
        torn.write('{"id": "t2", "outc')
    done = g4agent(*run[:3], "scripted_agents:one_by_one_again", *run[4:])
    assert done.returncode == 22, done.stderr
    told = done.stderr.splitlines()
    assert [line.split(":")[0] for line in told] == ["[2/3] t1", "[3/3] t2"]
    assert "t1: done" in told[0] and "t2: nothing_done" in told[1]
    begun = [json.loads(line) for line in (out / "sessions.jsonl").read_text().splitlines()]
    assert len({line["session"] for line in begun if line["id"] == "t1"}) == 1, "the begun session is gone on with"
    assert "## 2 of 3 runs succeeded" in (out / "summary.md").read_text()


def test_a_batch_goes_on_after_an_approval(g4agent: Command, tmp_path: Path) -> None:
    """The night's run asks, somebody answers in the morning, and the same command does the rest."""
    tasks, out = tmp_path / "tasks.jsonl", tmp_path / "out"
    tasks.write_text('{"id": "pay", "prompt": "Pay 5"}\n')
    run = ("batch", str(tasks), "--agent", "scripted_agents:careful", "--out", str(out))
    waiting = g4agent(*run)
    assert waiting.returncode == 22 and "pay: awaiting_approval" in waiting.stderr
    (row,) = g4agent("approve").stdout.splitlines()[1:]
    assert g4agent("approve", row.split()[0]).returncode == 0
    done = g4agent(*run)
    assert done.returncode == 0, done.stderr
    assert "## 1 of 1 runs succeeded" in (out / "summary.md").read_text()


@pytest.mark.parametrize(
    "line", ["[]", "{", '{"id": "x"}', '{"id": "x", "prompt": "y", "expext": []}', '{"id": "a b", "prompt": "y"}', ""]
)
def test_a_wrong_task_is_named_before_anything_runs(g4agent: Command, tmp_path: Path, line: str) -> None:
    """The tenth line's mistake must not show after nine runs."""
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text(f'{{"id": "good", "prompt": "x"}}\n{line}\n' if line else "")
    done = g4agent("batch", str(tasks), "--agent", "scripted_agents:adder", "--out", str(tmp_path / "out"))
    assert done.returncode == 1 and ("line 2" if line else "no task") in done.stderr
    assert not (tmp_path / "out" / "results.jsonl").exists()
