"""Long outputs are cut, and the rest can be found."""

from __future__ import annotations

from contextlib import chdir
from pathlib import Path

from g4agent.protected_paths import ProtectedPaths
from g4agent_coding.private import MAX_OUTPUTS, OUTPUTS, keep_output
from g4agent_coding.shaping import Shape, shape


def test_a_short_output_stays_as_it_is(tmp_path: Path) -> None:
    """And leaves nothing behind in the workspace."""
    with chdir(tmp_path):
        assert shape("one\ntwo\n") == "one\ntwo"
    assert not list(tmp_path.iterdir())


def test_a_long_output_keeps_head_and_tail_and_names_the_rest(tmp_path: Path) -> None:
    """The handle must lead to every line that was left out."""
    text = "\n".join(f"line {n}" for n in range(1000))
    with chdir(tmp_path):
        shown = shape(text, Shape(head_lines=2, tail_lines=3)).splitlines()
        assert shown[:2] == ["line 0", "line 1"] and shown[3:] == ["line 997", "line 998", "line 999"]
        assert shown[2] == f"[995 lines left out; all 1000 lines: {OUTPUTS}/1.txt]"
        assert Path(f"{OUTPUTS}/1.txt").read_text() == text


def test_only_the_latest_outputs_are_kept(tmp_path: Path) -> None:
    """A long session must not fill its workspace, nor reuse a handle."""
    with chdir(tmp_path):
        handles = [keep_output(str(n)) for n in range(MAX_OUTPUTS + 5)]
        assert len(set(handles)) == len(handles)
        assert [Path(handle).exists() for handle in handles] == [False] * 5 + [True] * MAX_OUTPUTS
        assert ProtectedPaths().is_secret(".env")
