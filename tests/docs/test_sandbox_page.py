"""The page on sandboxes: its example runs, and its table is that of today's cases."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "conformance"))

from cases_network import NETWORK_CASES
from sandbox_suite import CASES

PAGE = (Path(__file__).resolve().parents[2] / "docs/sandboxes.md").read_text()


def test_the_example_runs_as_printed(tmp_path: Path) -> None:
    """What a reader copies does not run: no shop answers here, but the agent, its net and its secrets are set up."""
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    script = tmp_path / "example.py"
    script.write_text(example)
    environment = {**os.environ, "G4AGENT_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(") and "the token" not in done.stdout


def test_the_table_is_that_of_the_cases() -> None:
    """A case was added or renamed and not run, or one that fails is not told."""
    rows = re.findall(r"^\| ([a-z]\d\d\w*) \| .* \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE)
    assert [row[0] for row in rows] == [*CASES, *NETWORK_CASES]
    assert {cell for row in rows for cell in row[1:4]} == {"holds", "refused"}
    assert all(row[4] == ("open" if row[0] in CASES and CASES[row[0]].starred else "–") for row in rows)
