"""run_tests on projects that pass, fail, do not load, hang, crash and lie."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from textwrap import dedent

import pytest

from g4agent_coding.files import edit_file
from g4agent_coding.testing import MAX_CHARS, MAX_LINES, report_tests, run_tests

Write = Callable[..., None]

CALC = "def add(a, b):\n    return a - b\n"


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Write]:
    """Writes a file of the project, which is the current folder."""

    def write(path: str, text: str) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))

    with chdir(tmp_path):
        yield write


def test_failures_come_by_name_with_what_is_wrong(write: Write) -> None:
    """This text is all that the model learns from a test run; it was trained on this form."""
    write("calc.py", CALC)
    write(
        "test_calc.py",
        """
        import unittest
        from calc import add

        class CalcTest(unittest.TestCase):
            def test_add(self):
                self.assertEqual(add(2, 3), 5)

            def test_zero(self):
                self.assertEqual(add(0, 0), 0)

            def test_list(self):
                self.assertEqual([1, 2], [2, 1])

            def test_key(self):
                {}["name"]

            def test_several(self):
                for n in (0, 1):
                    with self.subTest(n=n):
                        self.assertEqual(add(n, n), 2 * n)

            @unittest.skip("later")
            def test_later(self):
                self.fail()

            @unittest.expectedFailure
            def test_surprise(self):
                pass
        """,
    )
    expected = {
        "passed": 1,
        "failed": 5,
        "output": (
            "test_add: AssertionError: -1 != 5\n"
            "test_key: KeyError: 'name'\n"
            "test_list: AssertionError: Lists differ: [1, 2] != [2, 1]\n"
            "test_several (n=1): AssertionError: 0 != 2\n"
            "test_surprise: passed, but is marked as an expected failure"
        ),
    }
    assert run_tests() == run_tests("test_calc.py") == expected


def test_two_quick_edits_of_equal_length_are_both_seen(write: Write) -> None:
    """Bytecode of the same second and size would hide the second edit, and a fixed bug would go on failing."""
    write("calc.py", CALC)
    write(
        "test_calc.py",
        """
        import unittest
        from calc import add

        class CalcTest(unittest.TestCase):
            def test_add(self):
                self.assertEqual(add(2, 3), 5)
        """,
    )
    assert run_tests()["failed"] == 1
    edit_file("calc.py", "a - b", "a + b")
    assert run_tests() == {"passed": 1, "failed": 0, "output": ""}
    edit_file("calc.py", "a + b", "a * b")
    assert run_tests() == {"passed": 0, "failed": 1, "output": "test_add: AssertionError: 6 != 5"}


def test_modules_that_do_not_load_are_failures_with_their_place(write: Write) -> None:
    """The last line of a nested traceback, and where: else the model looks in the wrong file."""
    write("calc.py", "def add(a, b)\n    return a\n")
    write("test_calc.py", "import calc\n")
    write("test_gone.py", "import nowhere\n")
    write("test_quits.py", "raise SystemExit(3)\n")
    assert run_tests() == {
        "passed": 0,
        "failed": 3,
        "output": (
            "test_calc: SyntaxError: expected ':' (calc.py, line 1)\n"
            "test_gone: ModuleNotFoundError: No module named 'nowhere' (test_gone.py, line 1)\n"
            "test_quits: SystemExit: 3 (test_quits.py, line 1)"
        ),
    }


def test_a_class_fixture_that_fails_is_a_failure(write: Write) -> None:
    """No test of the class starts, so counting started tests would report success."""
    write(
        "test_fixture.py",
        """
        import unittest

        class FixtureTest(unittest.TestCase):
            @classmethod
            def setUpClass(cls):
                raise ValueError("no database")

            def test_it(self):
                pass
        """,
    )
    assert run_tests() == {
        "passed": 0,
        "failed": 1,
        "output": "setUpClass (test_fixture.FixtureTest): ValueError: no database",
    }


def test_an_endless_loop_ends_with_the_test_named(write: Write) -> None:
    """The model must learn which test hangs; floods of output and children must not keep the call."""
    write(
        "test_loop.py",
        """
        import subprocess, unittest

        class LoopTest(unittest.TestCase):
            def test_a(self):
                pass

            def test_loop(self):
                subprocess.Popen(["sleep", "60"])
                while True:
                    print("x" * 10000)
        """,
    )
    started = time.monotonic()
    assert report_tests(".", 1.0) == {"passed": 1, "failed": 1, "output": "test_loop: no result after 1 s"}
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(("end", "code"), [("os.abort()", -6), ("os._exit(0)", 0)])
def test_a_process_that_ends_early_is_a_failure(write: Write, end: str, code: int) -> None:
    """Even with exit code 0: a test that ends the process must not count as passed."""
    write(
        "test_end.py",
        f"""
        import os, unittest

        class EndTest(unittest.TestCase):
            def test_a(self):
                pass

            def test_end(self):
                {end}
        """,
    )
    assert run_tests() == {
        "passed": 1,
        "failed": 1,
        "output": f"test_end: the process ended with exit code {code}",
    }


def test_tests_in_a_package_and_beside_the_code_are_found(write: Write) -> None:
    """Both usual layouts work from the project's root, with relative imports in the package."""
    write("calc.py", CALC)
    write("tests/__init__.py", "")
    write("tests/values.py", "THREE = 3\n")
    write(
        "tests/test_package.py",
        """
        import unittest
        from calc import add
        from .values import THREE

        class PackageTest(unittest.TestCase):
            def test_add(self):
                self.assertEqual(add(2, 1), THREE)
        """,
    )
    expected = {"passed": 0, "failed": 1, "output": "test_add: AssertionError: 1 != 3"}
    assert run_tests() == run_tests("tests") == run_tests("tests/test_package.py") == expected


def test_the_packs_own_modules_are_not_in_the_way(write: Write) -> None:
    """A project may have modules called `files` or `testing`; the runner's own folder must not come first."""
    write("files.py", "NAME = 'mine'\n")
    write(
        "test_names.py",
        """
        import unittest
        import files

        class NamesTest(unittest.TestCase):
            def test_name(self):
                self.assertEqual(files.NAME, "mine")

            def test_other(self):
                with self.assertRaises(ImportError):
                    import testing
        """,
    )
    assert run_tests() == {"passed": 2, "failed": 0, "output": ""}


def test_long_reports_are_cut_and_say_how_much_is_missing(write: Write) -> None:
    """A hundred failures must not fill the context of a small model."""
    methods = "".join(f"    def test_{n:03}(self):\n        self.fail('x' * 400)\n" for n in range(100))
    write("test_many.py", f"import unittest\n\n\nclass ManyTest(unittest.TestCase):\n{methods}")
    report = run_tests()
    lines = report["output"].splitlines()
    assert report["failed"] == 100
    assert len(lines) <= MAX_LINES + 1 and len(report["output"]) <= MAX_CHARS + len(lines[-1]) + 1
    assert lines[-1] == f"and {100 - (len(lines) - 1)} more"


def test_where_there_is_nothing_to_run_the_answer_says_so(write: Write) -> None:
    """`passed: 0, failed: 0` would look like success."""
    write("calc.py", CALC)
    assert run_tests() == {"error": "no tests found in .: they must be in files called test*.py"}
    assert run_tests("nowhere") == {"error": "no file or folder nowhere"}
    assert run_tests("..") == {"error": ".. is outside the workspace"}
