"""What only happens on a terminal or by a signal: colour, approval, Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest
from command_line import COMMAND, Command, heed_ctrl_c
from terminal import Terminal


@pytest.mark.parametrize(("answer", "result"), [("y", "← pay: "), ("n", "✗ pay: "), ("", "✗ pay: ")])
def test_a_person_is_asked(environment: dict[str, str], answer: str, result: str) -> None:
    """A call that needs approval runs if a person says yes, and never by default."""
    terminal = Terminal(environment, "run", "x", "--agent", "scripted_agents:careful")
    terminal.read_until("Let it run? [y/N] ")
    terminal.type(answer + "\n")
    assert terminal.finish() == 0
    assert result in terminal.seen
    assert "effect: once, runs in: host" in terminal.seen


def test_ctrl_c_at_the_question_stops_the_run(environment: dict[str, str], g4agent: Command) -> None:
    """The question must not swallow Ctrl-C, nor take it for a yes."""
    terminal = Terminal(environment, "run", "x", "--agent", "scripted_agents:careful")
    terminal.read_until("Let it run? [y/N] ")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.finish() == 130
    assert "paid" not in terminal.seen
    id = terminal.seen.split("sessions resume ")[1].split()[0].removesuffix("\x1b[0m")
    assert "✗ pay: " in g4agent("sessions", "show", id).stdout


def test_ctrl_c_at_the_prompt_leaves_the_chat(environment: dict[str, str], g4agent: Command) -> None:
    """Ctrl-C between two turns ends the chat; the turn that was finished stays finished."""
    terminal = Terminal(environment, "chat", "--agent", "scripted_agents:adder")
    terminal.read_until("> ")
    terminal.type("What is 1 + 2?\n")
    terminal.read_until(" · session ")
    terminal.read_until("\n> ")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.finish() == 130
    assert "Traceback" not in terminal.seen
    assert g4agent("sessions", "list").stdout.splitlines()[1].split().count("done") == 1


def test_a_terminal_gets_colour(environment: dict[str, str]) -> None:
    """Thoughts are dimmed and errors red where that can be seen."""
    terminal = Terminal(environment, "run", "x", "--agent", "scripted_agents:adder")
    assert terminal.finish() == 0
    assert "\x1b[31m✗ add" in terminal.seen
    assert "\x1b[2;3mthought: " in terminal.seen


def _interrupt(environment: dict[str, str], *options: str) -> tuple[int, str]:
    """Exit code and output of a run that gets Ctrl-C while its tool waits."""
    command = [*COMMAND, "run", "x", "--agent", "scripted_agents:waiter", *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, encoding="utf-8", env=environment, preexec_fn=heed_ctrl_c
    ) as process:
        assert process.stdout is not None
        seen = ""
        while "wait" not in seen:
            seen += process.stdout.readline()
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        seen += process.stdout.read()
        return process.wait(30), seen


def test_ctrl_c_leaves_a_session_that_can_go_on(environment: dict[str, str], g4agent: Command) -> None:
    """After Ctrl-C every call has a result, the step is stored, the way on is printed, and it works."""
    code, seen = _interrupt(environment)
    assert code == 130
    id = seen.split("go on with: g4agent sessions resume ")[1].strip()
    assert "✗ wait: " in g4agent("sessions", "show", id).stdout
    done = g4agent("sessions", "resume", id, "--agent", "scripted_agents:waiter_again")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "Gone on.")


def test_ctrl_c_ends_the_events_as_well(environment: dict[str, str]) -> None:
    """A program that reads the events learns the verdict even then."""
    code, seen = _interrupt(environment, "--json")
    assert code == 130
    assert '"outcome": "interrupted"' in seen.splitlines()[-1]
