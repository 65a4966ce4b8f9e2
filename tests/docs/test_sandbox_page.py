"""The page on sandboxes: its table is that of today's cases."""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "conformance"))

from cases_network import NETWORK_CASES
from sandbox_suite import CASES

PAGE = (Path(__file__).resolve().parents[2] / "docs/sandboxes.md").read_text()


def test_the_table_is_that_of_the_cases() -> None:
    """A case was added or renamed and not run, or one that fails is not told."""
    rows = re.findall(r"^\| ([a-z]\d\d\w*) \| .* \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE)
    assert [row[0] for row in rows] == [*CASES, *NETWORK_CASES]
    assert {cell for row in rows for cell in row[1:4]} == {"holds", "refused"}
    assert all(row[4] == ("open" if row[0] in CASES and CASES[row[0]].starred else "–") for row in rows)
