"""What the machine is said to have."""

from __future__ import annotations

from pathlib import Path

import pytest

from g4agent.cli.machine import Memory, group_memory


@pytest.mark.parametrize(
    ("current", "inactive", "available"),
    [(3_000, 1_000, 6_000), (7_999, 0, 1), (8_000, 8_000, 8_000), (8_100, 0, 0)],
)
def test_what_a_control_group_uses_is_not_available(
    tmp_path: Path, current: int, inactive: int, available: int
) -> None:
    """In a container that is nearly full, `fit` said that a model fits."""
    (tmp_path / "memory.max").write_text("8000\n")
    (tmp_path / "memory.current").write_text(f"{current}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\nfile 9\ninactive_file {inactive}\nactive_file 3\n")
    assert group_memory(tmp_path) == Memory(8_000, available)


def test_a_group_without_a_limit_says_nothing(tmp_path: Path) -> None:
    assert group_memory(tmp_path) is None, "the root of all groups"
    (tmp_path / "memory.max").write_text("max\n")
    assert group_memory(tmp_path) is None
