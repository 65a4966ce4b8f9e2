"""Small Python projects with one bug. The test results are those that the bug really gives."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from coding_assistant.agent import POLICY

from g4agent_coding import tools
from training.dialogue import Dialogue, declare
from training.generic import NOUNS
from training.words import WORDS, Split, invented, part

ASK = (
    "The tests fail. Please fix {path}.",
    "Fix the bug in {path}.",
    "There is a bug in {path}. Fix it.",
    "Please fix {path}.",
    "{path} has a bug, please fix it.",
    "Make the tests pass, the bug is in {path}.",
    "Repair {path}.",
    "Something is wrong in {path}, fix it.",
    "A test of {path} fails, please fix it.",
)
ASK_OPEN = (
    "The tests fail. Please fix the bug.",
    "Fix the bug.",
    "Make the tests pass.",
    "A test fails, please fix it.",
    "The tests fail. Find the bug and fix it.",
    "Please fix the failing test.",
    "Find and fix the bug.",
    "There is a bug in this project. Fix it.",
)

FUNCTIONS: tuple[tuple[str, str, str, tuple[str, ...], tuple[Any, ...]], ...] = (
    ("add", "a, b", "a + b", ("a - b", "a * b", "a", "a + a"), (2, 3)),
    ("subtract", "a, b", "a - b", ("a + b", "b - a", "a * b"), (7, 3)),
    ("multiply", "a, b", "a * b", ("a + b", "a - b", "a / b"), (4, 5)),
    ("divide", "a, b", "a / b", ("a * b", "a // b", "b / a"), (7, 2)),
    ("power", "a, b", "a ** b", ("a * b", "b ** a"), (2, 5)),
    ("remainder", "a, b", "a % b", ("a // b", "a / b"), (7, 4)),
    ("square", "x", "x * x", ("x + x", "x * 2", "x"), (5,)),
    ("cube", "x", "x * x * x", ("x * x", "x * 3"), (3,)),
    ("double", "x", "x * 2", ("x * 3", "x + 2", "x"), (6,)),
    ("half", "x", "x / 2", ("x / 3", "x * 2", "x - 2"), (9,)),
    ("negate", "x", "-x", ("x", "+x"), (4,)),
    ("increment", "x", "x + 1", ("x - 1", "x", "x + 2"), (4,)),
    ("decrement", "x", "x - 1", ("x + 1", "x", "x - 2"), (4,)),
    ("is_even", "n", "n % 2 == 0", ("n % 2 == 1", "n % 2 != 0", "n % 2"), (4,)),
    ("is_odd", "n", "n % 2 == 1", ("n % 2 == 0", "n % 2"), (3,)),
    ("is_positive", "n", "n > 0", ("n < 0", "n == 0"), (3,)),
    ("is_negative", "n", "n < 0", ("n > 0", "n == 0"), (-3,)),
    ("is_zero", "n", "n == 0", ("n != 0", "n > 0"), (0,)),
    ("last", "items", "items[-1]", ("items[0]", "items[1]"), ([3, 5, 8],)),
    ("first", "items", "items[0]", ("items[1]", "items[-1]"), ([3, 5, 8],)),
    ("total", "items", "sum(items)", ("len(items)", "max(items)", "min(items)"), ([3, 5, 8],)),
    ("count", "items", "len(items)", ("sum(items)", "max(items)", "len(items) - 1"), ([3, 5, 8],)),
    ("largest", "items", "max(items)", ("min(items)", "sum(items)"), ([3, 5, 8],)),
    ("smallest", "items", "min(items)", ("max(items)", "len(items)"), ([4, 5, 8],)),
    ("average", "items", "sum(items) / len(items)", ("sum(items)", "len(items) / sum(items)"), ([4, 6],)),
    ("reverse", "items", "items[::-1]", ("items", "items[::1]", "items[1:]"), ([1, 2, 3],)),
    ("is_empty", "items", "len(items) == 0", ("len(items) > 0", "len(items) == 1"), ([],)),
    ("shout", "text", "text.upper()", ("text.lower()", "text.title()", "text"), ("hello",)),
    ("whisper", "text", "text.lower()", ("text.upper()", "text"), ("HELLO",)),
    ("clean", "text", "text.strip()", ("text.title()", "text"), (" a ",)),
    ("initial", "text", "text[0]", ("text[1]", "text[-1]"), ("hello",)),
    ("length", "text", "len(text)", ("len(text) - 1", "len(text) + 1"), ("hello",)),
    ("area", "width, height", "width * height", ("width + height", "width / height", "width * width"), (3, 4)),
    ("perimeter", "width, height", "2 * (width + height)", ("width + height", "2 * (width - height)"), (3, 4)),
    ("greet", "name", "'Hello ' + name", ("'Hello '", "'Hello' + name", "name"), ("Ann",)),
    ("is_adult", "age", "age >= 18", ("age > 18", "age < 18", "age >= 21"), (18,)),
    ("maximum", "a, b", "max(a, b)", ("min(a, b)", "a"), (2, 3)),
    ("minimum", "a, b", "min(a, b)", ("max(a, b)", "b"), (2, 3)),
    ("sum_to", "n", "sum(range(n + 1))", ("sum(range(n))", "sum(range(n - 1))"), (4,)),
    ("contains", "items, item", "item in items", ("item not in items", "items in item"), ([1, 2], 2)),
    ("discount", "price, percent", "price - price * percent / 100", ("price + price * percent / 100",), (200, 10)),
    ("with_tax", "price, rate", "price + price * rate", ("price - price * rate", "price * rate"), (100, 2)),
)
"""Name, parameters, right expression, wrong ones, and arguments of the test."""


@dataclass(frozen=True, slots=True)
class Project:
    """Files with one bug, and the edit that mends it."""

    path: str
    test_path: str
    test_name: str
    source: str
    test_source: str
    wrong: str
    right: str
    failure: str
    tests: int


def failure(parameters: str, expression: str, arguments: tuple[Any, ...], expected: Any) -> str | None:
    """What unittest says of the wrong expression; None where it is right by accident."""
    try:
        got = eval(f"(lambda {parameters}: {expression})")(*arguments)
    except Exception as error:  # a wrong expression may fail in any way
        return f"{type(error).__name__}: {error}"
    return None if got == expected else f"AssertionError: {got!r} != {expected!r}"


def typo(rng: random.Random, name: str) -> str:
    """The name with a letter lost, doubled or swapped."""
    at = rng.randrange(len(name) - 1)
    swapped = name[:at] + name[at + 1] + name[at] + name[at + 2 :]
    wrong = rng.choice([name[:at] + name[at + 1 :], name[: at + 1] + name[at:], swapped])
    return wrong if wrong != name and wrong.isidentifier() else name + name[-1]


def named(rng: random.Random, split: Split) -> tuple[str, str, str, tuple[str, ...], tuple[Any, ...]]:
    """A function of invented names whose bug is a misspelt variable, which the parameters show."""
    first, second = rng.sample(sorted({*part(WORDS, split), *NOUNS, *(invented(rng, split) for _ in range(60))}), 2)
    operator = rng.choice("+-*")
    wrong = rng.choice([f"{typo(rng, first)} {operator} {second}", f"{first} {operator} {typo(rng, second)}"])
    name = f"{rng.choice(part(WORDS, split))}_{invented(rng, split)}"
    return name, f"{first}, {second}", f"{first} {operator} {second}", (wrong,), (rng.randint(2, 9), rng.randint(2, 9))


def project(rng: random.Random, split: Split) -> Project:
    """A module of one to three functions, one of them wrong, with its tests."""
    while True:
        chosen = named(rng, split) if rng.random() < 0.35 else rng.choice(FUNCTIONS)
        name, parameters, right, wrongs, arguments = chosen
        wrong = rng.choice(wrongs)
        if len(arguments) == 2 and all(isinstance(argument, int) for argument in arguments):
            arguments = (arguments[0] + rng.randint(0, 9), arguments[1])
        elif isinstance(arguments[0], str) and arguments[0].strip() == "hello":
            arguments = (rng.choice([invented(rng, split), rng.choice(part(WORDS, split))]),)
        expected = eval(f"(lambda {parameters}: {right})")(*arguments)
        said = failure(parameters, wrong, arguments, expected)
        if said is not None:
            break
    others = rng.sample([entry for entry in FUNCTIONS if entry[0] != name], rng.randint(0, 2))
    functions = [(name, parameters, wrong), *((other[0], other[1], other[2]) for other in others)]
    rng.shuffle(functions)
    source = "\n\n".join(f"def {each}({these}):\n    return {body}\n" for each, these, body in functions)
    while source.count(f"return {wrong}") != 1:
        functions = [(name, parameters, wrong)]
        source = f"def {name}({parameters}):\n    return {wrong}\n"
    module = invented(rng, split) if rng.random() < 0.5 else rng.choice([*part(WORDS, split), *part(NOUNS, split)])
    folder = rng.choice(["", "", "", "src/", "app/", "lib/"])
    cases = [(name, arguments, expected)]
    cases += [
        (other[0], other[4], eval(f"(lambda {other[1]}: {other[2]})")(*other[4]))
        for other in others
        if any(other[0] == each for each, _, _ in functions)
    ]
    test_source = (
        f"import unittest\n\nfrom {folder.replace('/', '.')}{module} import {', '.join(case[0] for case in cases)}\n"
    )
    test_source += "\n\nclass Tests(unittest.TestCase):\n" + "\n".join(
        f"    def test_{each}(self):\n        self.assertEqual({each}({', '.join(map(repr, these))}), {wanted!r})\n"
        for each, these, wanted in cases
    )
    return Project(
        f"{folder}{module}.py",
        f"test_{module}.py",
        f"test_{name}",
        source,
        test_source,
        f"return {wrong}",
        f"return {right}",
        said,
        len(cases),
    )


def dialogue(rng: random.Random, split: Split, turns: int = 1) -> Dialogue:
    """Some bugs, each in a project of its own; with thinking on, one."""
    talk = Dialogue(POLICY, declare(tools()), rng.random() < 0.3)
    for _ in range(1 if talk.thinking else turns):
        fix(rng, project(rng, split), talk)
    return talk


def execute(bug: Project, files: dict[str, str], name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """A call on a project held in memory, answered as the tool pack answers."""
    path = arguments.get("path", ".")
    if name == "list_files":
        return {"files": sorted(files)}
    if name == "run_tests":
        if bug.right in files[bug.path]:
            return {"passed": bug.tests, "failed": 0, "output": ""}
        return {"passed": bug.tests - 1, "failed": 1, "output": f"{bug.test_name}: {bug.failure}"}
    if path not in files:
        return {"error": f"no file {path}"}
    if name == "read_file":
        return {"text": files[path]}
    old, new = arguments["old"], arguments["new"]
    if (times := files[path].count(old)) != 1:
        return {"error": f"`old` occurs {times} times: give more context" if times else "`old` not found"}
    files[path] = files[path].replace(old, new)
    return {"path": path, "replaced": 1}


def tasks(split: Split, n: int, seed: int) -> list[Project]:
    """Bugs to fix, always the same for a seed."""
    rng = random.Random(f"{split} {seed}")
    return [project(rng, split) for _ in range(n)]


def fix(rng: random.Random, bug: Project, talk: Dialogue) -> None:
    """Test, look for the file where it was not named, read, edit, test again."""

    def do(thought: str, name: str, arguments: dict[str, Any], result: dict[str, Any]) -> None:
        talk.call(thought, (name, arguments))
        talk.results((name, result))

    told = rng.random() < 0.5
    talk.user(rng.choice(ASK).format(path=bug.path) if told else rng.choice(ASK_OPEN))
    output = f"{bug.test_name}: {bug.failure}"
    do("Run the tests.", "run_tests", {}, {"passed": bug.tests - 1, "failed": 1, "output": output})
    if not told:
        do("Look for the file.", "list_files", {}, {"files": sorted([bug.path, bug.test_path])})
    do("Read the file.", "read_file", {"path": bug.path}, {"text": bug.source})
    do(
        f"{bug.test_name.removeprefix('test_')} must be {bug.right}.",
        "edit_file",
        {"path": bug.path, "old": bug.wrong, "new": bug.right},
        {"path": bug.path, "replaced": 1},
    )
    do("Run the tests again.", "run_tests", {}, {"passed": bug.tests, "failed": 0, "output": ""})
    talk.final("All tests pass.", f"I fixed {bug.path}: {bug.wrong} is now {bug.right}.")
