"""Running a project's tests by whatever it uses: pytest, unittest, npm, cargo, go or make."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from g4agent.tools import tool
from g4agent.workspace_files import Refusal, answers_refusals, locate
from g4agent_coding import run_pytest, run_unittest
from g4agent_coding.process import run
from g4agent_coding.reports import Counts, read_output
from g4agent_coding.shaping import Shape, shape
from g4agent_coding.testing import run_script
from g4agent_coding.workspace import walk

PROJECT_SECONDS = 240.0
"""For all tests together."""
FAILURES = Shape(head_lines=20, tail_lines=1, chars=4000)
REPORT = Shape(head_lines=5, tail_lines=25, chars=3000)
MAX_LOOKED_AT = 200
"""Test files that are read to see whether they are for pytest."""
PLAIN = {"CI": "1", "NO_COLOR": "1", "CARGO_TERM_COLOR": "never", "npm_config_offline": "true", "npm_config_color": "0"}

Runner: TypeAlias = Literal["pytest", "unittest", "cargo", "go", "npm", "make"]
COMMANDS: dict[Runner, list[str]] = {
    "cargo": ["cargo", "test", "--offline", "--no-fail-fast"],
    "go": ["go", "test", "-json", "./..."],
    "npm": ["npm", "test", "--silent"],
    "make": ["make", "test"],
}
PYTEST_SECTIONS = {"pyproject.toml": "[tool.pytest", "setup.cfg": "[tool:pytest]", "tox.ini": "[pytest]"}


@tool(name="run_tests", effect="idempotent", timeout=PROJECT_SECONDS + 20)
@answers_refusals
def run_project_tests(path: str = ".", runner: Literal["auto"] | Runner = "auto") -> dict[str, Any]:
    """Run the tests; failures come first.

    Args:
        path: Folder or test file.
        runner: Told from the project by default.
    """
    return report_project(path, runner, PROJECT_SECONDS)


def report_project(path: str, runner: Literal["auto"] | Runner, seconds: float) -> dict[str, Any]:
    """What `run_tests` of the full set answers, for any time limit.

    Raises:
        Refusal: The path is outside or missing, or nothing says how to test it.
    """
    target = locate(path)
    if not target.exists():
        raise Refusal(f"no file or folder {path}")
    chosen = detect(target) if runner == "auto" else runner
    if chosen in ("pytest", "unittest"):
        return {"runner": chosen, **_run_python(chosen, target, path, seconds)}
    folder = _home(chosen, target)
    if folder is None:
        raise Refusal(f"nothing here is tested by {chosen}: no {_MARKERS[chosen][0]} in {path} or above it")
    ended = run(COMMANDS[chosen], seconds, env=PLAIN, folder=folder)
    return {"runner": chosen, **_report(read_output(ended.output), ended.exit_code, ended.output, seconds)}


def detect(target: Path) -> Runner:
    """How the tests of a folder or file are run. Raises Refusal where nothing tells."""
    root = Path.cwd().resolve()
    tests = [Path(file) for file in _python_tests(target)]
    has_pytest = importlib.util.find_spec("pytest") is not None
    if tests and has_pytest and (_configures_pytest(root) or any(map(_is_for_pytest, tests))):
        return "pytest"
    if any(file.name.startswith("test") for file in tests):
        return "unittest"
    for runner in COMMANDS:
        if _home(runner, target) is not None:
            return runner
    raise Refusal(f"nothing tells how to test this: give `runner`, one of {', '.join(get_args(Runner))}")


def _python_tests(target: Path) -> list[str]:
    files = walk(target) if target.is_dir() else iter([str(target)])
    return list(islice((f for f in files if re.search(r"(^|/)(test[^/]*|[^/]*_test)\.py$", f)), MAX_LOOKED_AT))


def _configures_pytest(root: Path) -> bool:
    return any((root / name).exists() for name in ("pytest.ini", "conftest.py", "tests/conftest.py")) or any(
        section in _text(root / name) for name, section in PYTEST_SECTIONS.items()
    )


def _is_for_pytest(file: Path) -> bool:
    return re.search(r"^(import pytest|from pytest|(async )?def test)", _text(file), re.MULTILINE) is not None


def _has_script(file: Path) -> bool:
    try:
        script = json.loads(_text(file))["scripts"]["test"]
    except (ValueError, KeyError, TypeError):
        return False
    return "no test specified" not in str(script)


_MARKERS: dict[Runner, tuple[str, Callable[[Path], bool]]] = {
    "cargo": ("Cargo.toml", Path.exists),
    "go": ("go.mod", Path.exists),
    "npm": ("package.json with a test script", _has_script),
    "make": (
        "Makefile with a target `test`",
        lambda file: re.search(r"^test\s*:", _text(file), re.MULTILINE) is not None,
    ),
}


def _home(runner: Runner, target: Path) -> Path | None:
    """The nearest folder, from the target upwards, that the runner can work in."""
    root = Path.cwd().resolve()
    name, fits = _MARKERS[runner]
    for folder in (target, *target.parents):
        if fits(folder / name.split()[0]):
            return folder
        if folder == root:
            break
    return None


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""


def _run_python(runner: Runner, target: Path, path: str, seconds: float) -> dict[str, Any]:
    if runner == "pytest" and importlib.util.find_spec("pytest") is None:
        raise Refusal("pytest is not installed here: try the runner unittest")
    script = run_pytest.__file__ if runner == "pytest" else run_unittest.__file__
    report, ended = run_script(Path(script), target, seconds)
    if not report.passed and not report.failed and not report.ran:
        raise Refusal(f"no tests found in {path}")
    counts = Counts(report.passed, report.failed, report.lines)
    return _report(counts, ended.exit_code, ended.output, seconds)


def _report(counts: Counts | None, exit_code: int | None, output: str, seconds: float) -> dict[str, Any]:
    report: dict[str, Any] = {}
    if counts is not None:
        report |= {"passed": counts.passed, "failed": counts.failed}
        if counts.failures:
            report["failures"] = shape("\n".join(counts.failures), FAILURES)
    if exit_code is None:
        report["error"] = f"no end after {seconds:g} s"
    elif counts is None or (exit_code and not counts.failed):
        report["exit_code"] = exit_code
    if output.strip() and (report.get("failed") or "exit_code" in report or "error" in report):
        report["output"] = shape(output, REPORT)
    return report
