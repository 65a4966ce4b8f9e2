"""How `make test` spreads the suite over processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
WHERE = """
import os
from pathlib import Path

import pytest


@pytest.mark.parametrize("number", range(8))
def test_where(number):
    with Path("workers").open("a") as file:
        print(Path(__file__).stem, os.environ["PYTEST_XDIST_WORKER"], file=file)
"""


def test_files_and_boxes_stay_on_one_worker(tmp_path: Path) -> None:
    """A test that relies on its file's earlier ones, or that looks at the whole machine, would fail now and then."""
    names = ["docker/test_a", "docker/test_b", "bubblewrap/test_c", "core/test_d", "core/test_e", "core/test_f"]
    for name in names:
        file = tmp_path / "tests" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(WHERE)
    (tmp_path / "tests/conftest.py").write_bytes((TESTS / "conftest.py").read_bytes())
    command = [sys.executable, "-m", "pytest", "-q", "--numprocesses", "2", "--rootdir", str(tmp_path), "tests"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    pairs = {tuple(line.split()) for line in (tmp_path / "workers").read_text().splitlines()}
    assert len(pairs) == len(names), "a file was split"
    workers = dict(pairs)
    assert workers["test_a"] == workers["test_b"] == workers["test_c"], workers
    assert len(set(workers.values())) == 2, "all ran on one worker"
