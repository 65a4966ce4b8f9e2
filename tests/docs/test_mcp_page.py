"""The examples of docs/mcp.md run as printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "mcp.md"
PRINTED = ["['reset_state', 'calculate', 'cancel_pending_order']\n", "shop_reset_state\n"]
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize(
    ("example", "printed"),
    list(zip(EXAMPLES, PRINTED, strict=True)),
)
def test_an_example_runs_as_printed(tmp_path: Path, example: str, printed: str) -> None:
    """What is copied from the page must work, with a server that is not ours, in its box."""
    (tmp_path / "example.py").write_text(example)
    command = [sys.executable, "example.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, printed), done.stderr
