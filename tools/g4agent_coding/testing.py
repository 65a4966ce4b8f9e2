"""Running a project's unit tests, in a process of their own that may crash, hang or print without end."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from g4agent.tools import tool
from g4agent.workspace_files import Refusal, answers_refusals, locate
from g4agent_coding import run_unittest
from g4agent_coding.process import Ended, run

TEST_SECONDS = 20.0
"""For all tests together; an endless loop ends here, well before the call's own timeout."""

MAX_LINES = 8
MAX_CHARS = 600
"""Of `output`: what a small model can read."""

MAX_LINE_CHARS = 150


@dataclass(slots=True)
class Report:
    """What the test process told before it ended."""

    passed: int = 0
    failed: int = 0
    lines: list[str] = field(default_factory=list)
    running: str | None = None
    """A test that began and did not end."""
    ran: int | None = None
    """Tests run; None if the process ended before it could say."""


@tool(effect="idempotent", timeout=60)
@answers_refusals
def run_tests(path: str = ".") -> dict[str, Any]:
    """Run the unit tests.

    Args:
        path: Folder or test file.
    """
    return report_tests(path, TEST_SECONDS)


def report_tests(path: str, seconds: float) -> dict[str, Any]:
    """What `run_tests` answers, for any time limit.

    Args:
        path: Folder or test file in the workspace.
        seconds: For all tests together.

    Raises:
        Refusal: The path is outside, missing, or has no tests.
    """
    target = locate(path)
    if not target.exists():
        raise Refusal(f"no file or folder {path}")
    report, _ = run_script(Path(run_unittest.__file__), target, seconds)
    if not report.ran and not report.failed:
        raise Refusal(f"no tests found in {path}: they must be in files called test*.py")
    return {"passed": report.passed, "failed": report.failed, "output": _shorten(report.lines)}


def run_script(script: Path, target: Path, seconds: float) -> tuple[Report, Ended]:
    """Runs a test script and reads its journal. If it did not come to its end, that is one more failure."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal"
        journal.touch()
        # -B: a bytecode file keeps the source's time in seconds: two quick edits of equal length would look like one
        ended = run([sys.executable, "-B", str(script), str(target), str(journal)], seconds)
        report = _read(journal)
    if report.ran is None:
        how = (
            f"no result after {seconds:g} s"
            if ended.exit_code is None
            else (f"the process ended with exit code {ended.exit_code}")
        )
        report.failed += 1
        report.lines.append(f"{report.running or 'loading the tests'}: {how}")
    return report, ended


def _read(journal: Path) -> Report:
    report = Report()
    for line in journal.read_text(errors="replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            break  # cut off in the middle of a line
        match event:
            case {"start": str(name)}:
                report.running = name
            case {"failure": str(name), "reason": str(reason)}:
                report.lines.append(f"{name}: {reason}")
            case {"passed": int(passed), "failed": int(failed)}:
                report.passed, report.failed, report.running = passed, failed, None
            case {"finished": int(ran)}:
                report.ran = ran
    return report


def _shorten(lines: list[str]) -> str:
    kept: list[str] = []
    for line in (line[:MAX_LINE_CHARS] for line in lines):
        if len(kept) == MAX_LINES or len("\n".join([*kept, line])) > MAX_CHARS:
            return "\n".join([*kept, f"and {len(lines) - len(kept)} more"])
        kept.append(line)
    return "\n".join(kept)
