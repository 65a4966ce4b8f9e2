"""The test process: `python run_unittest.py TARGET JOURNAL` runs the tests of a folder or file by unittest discovery.

It writes one JSON line to the journal per event, so that the reader knows how far it came even if a test kills it:

    {"start": "test_add"}    {"failure": "test_add", "reason": "AssertionError: -1 != 5"}
    {"passed": 3, "failed": 1}    after every test    {"finished": 4}    at the end: tests run

Only the standard library is imported, before the project's own folder goes to the front of `sys.path`.
"""

from __future__ import annotations

import json
import os
import re
import sys
import unittest
from pathlib import Path
from types import TracebackType
from typing import TextIO, TypeAlias

ErrorInfo: TypeAlias = "tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]"


class JournalResult(unittest.TestResult):
    """Counts tests and journals each event. A test with several failing subtests counts once."""

    def __init__(self, journal: TextIO) -> None:
        super().__init__()
        self._journal = journal
        self._passed = 0
        self._failed: set[str] = set()
        self._skipped: set[str] = set()

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.write({"start": _name(test)})

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        if test.id() not in self._failed | self._skipped:
            self._passed += 1
        self._count()

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self._skipped.add(test.id())

    def addFailure(self, test: unittest.TestCase, err: ErrorInfo) -> None:
        self._fail(test, _name(test), _reason(err[1]))

    def addError(self, test: unittest.TestCase, err: ErrorInfo) -> None:
        self._fail(test, _name(test), _reason(err[1]))

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: ErrorInfo | None) -> None:
        if err is not None:
            parameters = subtest.id().removeprefix(test.id()).strip()
            self._fail(test, f"{_name(test)} {parameters}", _reason(err[1]))

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self._fail(test, _name(test), "passed, but is marked as an expected failure")

    def write(self, event: dict[str, object]) -> None:
        """Adds one event, at once."""
        self._journal.write(json.dumps(event) + "\n")
        self._journal.flush()

    def _fail(self, test: unittest.TestCase, name: str, reason: str) -> None:
        self._failed.add(test.id())
        self.write({"failure": name, "reason": reason})
        self._count()

    def _count(self) -> None:
        self.write({"passed": self._passed, "failed": len(self._failed)})


def _name(test: unittest.TestCase) -> str:
    """The method's name; the module's, if it cannot be imported; for a fixture of a class, what unittest says."""
    return str(getattr(test, "_testMethodName", test))


def _reason(error: BaseException | None) -> str:
    """The line that says what is wrong. A failed import comes as a whole traceback in the message: its last line."""
    message = str(error).strip()
    lines = message.splitlines()
    if isinstance(error, ImportError) and "Traceback (most recent call last)" in message:
        place = re.findall(r'File "([^"]+)", line (\d+)', message)
        where = f" ({Path(place[-1][0]).name}, line {place[-1][1]})" if place else ""
        return lines[-1] + where
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def main(target: Path, journal: Path) -> None:
    """Discovers and runs; a folder that is a package is imported as one, from the project's root."""
    root = Path.cwd().resolve()
    sys.path[0] = str(root)
    folder, pattern = (target, "test*.py") if target.is_dir() else (target.parent, target.name)
    top = root if (folder / "__init__.py").exists() else folder
    with journal.open("a", encoding="utf-8") as stream:
        result = JournalResult(stream)
        unittest.TestLoader().discover(str(folder), pattern, str(top)).run(result)
        result.write({"finished": result.testsRun})
        os.fsync(stream.fileno())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
    os._exit(0)  # threads that tests left behind must not hold the process
