"""What the reports of usual test programs say: how many passed, how many failed, and which."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counts:
    """The outcome of a test run."""

    passed: int = 0
    failed: int = 0
    failures: list[str] = field(default_factory=list)
    """One line per failed test."""


@dataclass(frozen=True, slots=True)
class Format:
    """How a program reports. All matches of a number are added up; `failure` matches once per failed test."""

    seen: str
    """What only this program's report has."""
    passed: str
    failed: str
    failure: str


FORMATS = (
    Format(
        r"^test result: ",
        r"^test result: .*?(\d+) passed",
        r"^test result: .*?(\d+) failed",
        r"^test (.+) \.\.\. FAILED$",
    ),  # cargo
    Format(r"^# pass \d", r"^# pass (\d+)", r"^# fail (\d+)", r"^ *not ok \d+ - (.+)$"),  # node --test, TAP
    Format(r"^ℹ pass \d", r"^ℹ pass (\d+)", r"^ℹ fail (\d+)", r"^ *✖ (?!failing tests)(.+?)(?: \([\d.]+ms\))?$"),
    Format(r"^Tests: +.*total", r"^Tests: .*?(\d+) passed", r"^Tests: .*?(\d+) failed", r"^  ● (.+)$"),  # Jest
    Format(r"^ *Tests  .*\(\d+\)", r"^ *Tests  .*?(\d+) passed", r"^ *Tests  .*?(\d+) failed", r"^ FAIL  (.+)$"),
    Format(r"^ +\d+ passing", r"^ +(\d+) passing", r"^ +(\d+) failing", r"^ +\d+\) (.+)$"),  # Mocha
    Format(
        r"^=+ .*\b(passed|failed|errors?)\b.* in [\d.]+s",
        r"^=+ .*?(\d+) passed",
        r"^=+ .*?(\d+) (?:failed|errors?)",
        r"^(?:FAILED|ERROR) (.+)$",
    ),  # pytest
    Format(r"^--- (?:PASS|FAIL)", r"^( *)--- PASS", r"^( *)--- FAIL", r"^ *--- FAIL: (\S+)"),  # go test -v
)


def read_output(output: str) -> Counts | None:
    """The counts in a program's report; None where it is of no known form."""
    if output.startswith('{"Time":'):
        return _read_go(output)
    if ran := re.search(r"^Ran (\d+) tests? in", output, re.MULTILINE):
        return _read_unittest(output, int(ran[1]))
    for form in FORMATS:
        if re.search(form.seen, output, re.MULTILINE):
            failures = re.findall(form.failure, output, re.MULTILINE)
            return Counts(_sum(form.passed, output), _sum(form.failed, output), list(dict.fromkeys(failures)))
    return None


def _sum(pattern: str, output: str) -> int:
    """Of the numbers that match; a match without a number is one."""
    return sum(int(number) if number.strip() else 1 for number in re.findall(pattern, output, re.MULTILINE))


def _read_unittest(output: str, ran: int) -> Counts:
    ended = re.search(r"^FAILED \((.+)\)$", output, re.MULTILINE)
    numbers = {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", ended[1])} if ended else {}
    failed = numbers.get("failures", 0) + numbers.get("errors", 0)
    skipped = sum(map(int, re.findall(r"skipped=(\d+)", output)))
    return Counts(max(0, ran - failed - skipped), failed, re.findall(r"^(?:FAIL|ERROR): (.+)$", output, re.MULTILINE))


def _read_go(output: str) -> Counts:
    """`go test -json`: a test with subtests counts by these alone. The last line that it printed is the reason."""
    ends: dict[str, str] = {}
    printed: dict[str, str] = {}
    broken: list[str] = []
    for line in output.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        match event:
            case {"Action": "pass" | "fail" | "skip" as action, "Package": str(package), "Test": str(test)}:
                ends[f"{package} {test}"] = action
            case {"Action": "output", "Package": str(package), "Test": str(test), "Output": str(text)}:
                if text.strip() and not text.lstrip().startswith(("---", "===")):
                    printed[f"{package} {test}"] = text.strip()
            case {"Action": "build-output", "Output": str(text)} if not text.startswith("#"):
                broken.append(text.strip())
    leaves = {name: end for name, end in ends.items() if not any(other.startswith(f"{name}/") for other in ends)}
    failed = [name for name, end in leaves.items() if end == "fail"]
    failures = [f"{name.split(' ', 1)[1]}: {printed.get(name, 'failed')}" for name in failed]
    passed = sum(end == "pass" for end in leaves.values())
    return Counts(passed, len(failed) + len(broken), [*broken, *failures])
