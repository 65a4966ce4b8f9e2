"""The test process for pytest: `python run_pytest.py TARGET JOURNAL`; the journal is that of `run_unittest`.

pytest's own report, with its tracebacks, goes to standard output.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO


class Journal:
    """A pytest plugin that writes one JSON line per event."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._passed: set[str] = set()
        self.failed: set[str] = set()
        self._ran = 0

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._ran += 1
        self._write({"start": nodeid})

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self._fail(report)
        elif report.when == "call" and report.passed:
            self._passed.add(report.nodeid)

    def pytest_runtest_logfinish(self) -> None:
        self._count()

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self._fail(report)
            self._count()

    def finish(self) -> None:
        self._write({"finished": self._ran})

    def _fail(self, report: Any) -> None:
        self.failed.add(report.nodeid)
        self._write({"failure": report.nodeid, "reason": _reason(report)})

    def _count(self) -> None:
        self._write({"passed": len(self._passed - self.failed), "failed": len(self.failed)})

    def _write(self, event: dict[str, object]) -> None:
        self._stream.write(json.dumps(event) + "\n")
        self._stream.flush()


def _reason(report: Any) -> str:
    """The error's first line and where it was raised; of a file that does not load, the error's last line."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is None:
        errors = [line[4:] for line in str(report.longrepr).splitlines() if line.startswith("E   ")]
        return errors[-1] if errors else str(report.longrepr).strip().splitlines()[-1]
    path = Path(crash.path)
    where = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"{crash.message.splitlines()[0]} ({where}:{crash.lineno})"


def main(target: Path, journal: Path) -> None:
    """Runs pytest as `python -m pytest` would, with the project's folder first on `sys.path`."""
    sys.path[0] = str(Path.cwd())
    import pytest

    with journal.open("a", encoding="utf-8") as stream:
        plugin = Journal(stream)
        code = pytest.main(["-q", "--color=no", "-p", "no:cacheprovider", str(target)], plugins=[plugin])
        if (
            code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)
            or plugin.failed
        ):
            plugin.finish()
        os.fsync(stream.fileno())
    sys.stdout.flush()
    os._exit(int(code))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
