"""run_tests of the full set: which runner a project wants, and what each report says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from textwrap import dedent

import pytest

from g4agent_coding.reports import Counts, read_output
from g4agent_coding.runners import detect, report_project, run_project_tests

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Write]:
    """Writes a file of the project, which is the current folder."""

    def write(path: str, text: str) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))

    with chdir(tmp_path):
        yield write


def test_pytest_tells_failures_with_their_places(write: Write) -> None:
    """Name, reason and line come first; the traceback is in the output, or behind its handle."""
    write("pytest.ini", "[pytest]\n")
    write("calc.py", "def add(a, b):\n    return a - b\n")
    write(
        "tests/test_calc.py",
        """
        import pytest
        from calc import add

        def test_add():
            assert add(2, 3) == 5

        @pytest.mark.parametrize("n", [0, 1])
        def test_zero(n):
            assert add(n, n) == 0

        @pytest.fixture
        def broken():
            raise ValueError("no database")

        def test_fixture(broken):
            pass

        @pytest.mark.skip
        def test_later():
            pass
        """,
    )
    write("tests/test_gone.py", "import nowhere\n")
    report = run_project_tests()
    assert (report["runner"], report["passed"], report["failed"]) == ("pytest", 0, 1)  # one file does not load
    assert report["failures"] == "tests/test_gone.py: ModuleNotFoundError: No module named 'nowhere'"
    report = run_project_tests("tests/test_calc.py")
    assert (report["passed"], report["failed"]) == (2, 2)
    assert report["failures"].splitlines() == [
        "tests/test_calc.py::test_add: assert -1 == 5 (tests/test_calc.py:6)",
        "tests/test_calc.py::test_fixture: ValueError: no database (tests/test_calc.py:14)",
    ]
    assert "no database" in report["output"]


def test_a_pytest_that_hangs_or_ends_the_process_names_the_test(write: Write) -> None:
    """Else an endless loop teaches the model nothing."""
    write("test_loop.py", "def test_ok():\n    pass\n\ndef test_loop():\n    while True:\n        pass\n")
    report = report_project(".", "auto", 3.0)
    assert (report["passed"], report["failed"], report["error"]) == (1, 1, "no end after 3 s")
    assert report["failures"] == "test_loop.py::test_loop: no result after 3 s"
    write("test_loop.py", "import os\n\ndef test_quit():\n    os._exit(0)\n")
    assert report_project(".", "auto", 20.0)["failures"].startswith("test_loop.py::test_quit: the process ended")


def test_the_runner_is_told_from_the_project(write: Write, tmp_path: Path) -> None:
    """Python first, then what the manifest says; a placeholder script in package.json is none."""
    with pytest.raises(Exception, match="nothing tells how to test this"):
        detect(tmp_path)
    write("package.json", '{"scripts": {"test": "echo \\"Error: no test specified\\" && exit 1"}}')
    write("Makefile", "all:\n\ntest:\n\techo ok\n")
    assert detect(tmp_path) == "make"
    write("package.json", '{"scripts": {"test": "node --test"}}')
    assert detect(tmp_path) == "npm"
    write("crate/Cargo.toml", "")
    write("crate/src/lib.rs", "")
    assert detect(tmp_path / "crate/src") == "cargo"
    write("go.mod", "")
    assert detect(tmp_path) == "go"
    write("test_u.py", "import unittest\n\nclass T(unittest.TestCase):\n    def test_x(self): pass\n")
    assert detect(tmp_path) == "unittest"
    assert run_project_tests() == {"runner": "unittest", "passed": 1, "failed": 0}
    write("u_test.py", "def test_x():\n    assert True\n")
    assert detect(tmp_path) == "pytest"


def test_make_is_run_and_its_report_read(write: Write) -> None:
    """A report of a known form gives counts; any other its exit code and output."""
    write("Makefile", 'test:\n\t@echo "test result: FAILED. 3 passed; 1 failed"; echo "test m::x ... FAILED"; exit 1\n')
    report = run_project_tests()
    assert report["runner"] == "make" and (report["passed"], report["failed"]) == (3, 1)
    assert report["failures"] == "m::x"
    write("Makefile", "test:\n\t@echo broken; exit 3\n")
    report = run_project_tests(runner="make")
    assert report["exit_code"] == 2 and "broken" in report["output"] and "failed" not in report
    assert "no Cargo.toml in . or above it" in run_project_tests(runner="cargo")["error"]


CARGO = """\
running 3 tests
test tests::ok ... ok
test tests::wrong ... FAILED
test tests::other ... ok

---- tests::wrong stdout ----
thread 'tests::wrong' panicked at src/lib.rs:12:9:
test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

   Doc-tests demo
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s
"""
TAP = (
    "TAP version 13\n# Subtest: adds\nnot ok 1 - adds\nok 2 - zero\n1..2\n# tests 2\n# pass 1\n# fail 1\n# skipped 0\n"
)
SPEC = "✖ adds (1.5ms)\n✔ zero (0.1ms)\nℹ tests 2\nℹ pass 1\nℹ fail 1\n\n✖ failing tests:\n\n✖ adds (1.5ms)\n"
JEST = "FAIL ./a.test.js\n  ● adds\n\n    expect...\n\nTests:       1 failed, 2 passed, 3 total\nTime: 0.3 s\n"
VITEST = " FAIL  a.test.js > adds\n\n Test Files  1 failed (1)\n      Tests  1 failed | 2 passed (3)\n"
MOCHA = "  calc\n    ✔ zero\n    1) adds\n\n  2 passing (5ms)\n  1 failing\n\n  1) calc\n"
PYTEST = "F..\nFAILED t.py::test_a - assert 0\n=== 1 failed, 2 passed, 1 skipped in 0.12s ===\n"
UNITTEST = "FAIL: test_a (t.T)\n---\nRan 4 tests in 0.001s\n\nFAILED (failures=1, skipped=1)\n"
GO = "".join(
    f'{{"Time":"t","Action":"{action}","Package":"p"{rest}}}\n'
    for action, rest in (
        ("output", ',"Test":"TestAdd/one","Output":"    a_test.go:9: got 1\\n"'),
        ("fail", ',"Test":"TestAdd/one"'),
        ("pass", ',"Test":"TestAdd/two"'),
        ("fail", ',"Test":"TestAdd"'),
        ("pass", ',"Test":"TestZero"'),
        ("fail", ""),
    )
)


@pytest.mark.parametrize(
    ("output", "counts"),
    [
        (CARGO, Counts(3, 1, ["tests::wrong"])),
        (TAP, Counts(1, 1, ["adds"])),
        (SPEC, Counts(1, 1, ["adds"])),
        (JEST, Counts(2, 1, ["adds"])),
        (VITEST, Counts(2, 1, ["a.test.js > adds"])),
        (MOCHA, Counts(2, 1, ["adds", "calc"])),
        (PYTEST, Counts(2, 1, ["t.py::test_a - assert 0"])),
        (UNITTEST, Counts(2, 1, ["test_a (t.T)"])),
        (GO, Counts(2, 1, ["TestAdd/one: a_test.go:9: got 1"])),
        ("all good\n", None),
    ],
    ids=["cargo", "tap", "spec", "jest", "vitest", "mocha", "pytest", "unittest", "go", "unknown"],
)
def test_reports_are_read(output: str, counts: Counts | None) -> None:
    """In the forms that the programs print today; a report that is not understood is not guessed at."""
    assert read_output(output) == counts
