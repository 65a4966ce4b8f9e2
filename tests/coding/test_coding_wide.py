"""The tools for larger models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest

from g4agent import Agent
from g4agent.testing import ScriptedModel, call, say
from g4agent_coding import tools
from g4agent_coding.files import edit_file
from g4agent_coding.search import grep
from g4agent_coding.wide import read_lines, run_command, write_file


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path) -> Iterator[Path]:
    with chdir(tmp_path):
        yield tmp_path


def test_a_long_output_is_read_on_by_its_handle() -> None:
    """What was left out must be within reach of the model's own tools."""
    done = run_command("seq 1000; exit 3")
    assert done["exit_code"] == 3 and "[960 lines left out" in done["output"]
    handle = done["output"].split("1000 lines: ")[1].split("]")[0]
    part = read_lines(handle, 500)
    assert part["lines"] == "500-699 of 1000" and part["text"].startswith("500\n501\n")
    assert read_lines(handle, 2000) == {"error": f"{handle} has 1000 lines"}


def test_protected_files_are_refused(workspace: Path) -> None:
    """Secrets are not read, CI files not written, and a link does not get around that."""
    (workspace / ".env").write_text("KEY=1")
    (workspace / "plain.txt").symlink_to(".env")
    assert "secret" in read_lines(".env")["error"] and "secret" in read_lines("plain.txt")["error"]
    assert "protected" in write_file(".github/workflows/ci.yml", "x")["error"]
    assert not (workspace / ".github").exists()
    assert "protected" in edit_file(".env", "KEY=1", "KEY=2")["error"]
    assert write_file("new/a.py", "x = 1\n") == {"path": "new/a.py", "lines": 1}


@pytest.mark.anyio
async def test_the_full_set_works_in_the_sandbox() -> None:
    """One name, one tool; and a file that is written is there for the next command."""
    script = [
        call("write_file", path="a.py", text="print(6 * 7)\n"),
        call("run_command", command="python a.py"),
        call("read_file", path="a.py"),
        say("42"),
    ]
    model = ScriptedModel(script)
    result = await Agent(model=model, tools=tools(full=True), store=False).run("x")
    assert [r.value for r in result.results] == [
        {"path": "a.py", "lines": 1},
        {"exit_code": 0, "output": "42"},
        {"text": "print(6 * 7)", "lines": "1-1 of 1"},
    ]


def test_grep_names_the_places_and_skips_what_is_protected_or_binary(workspace: Path) -> None:
    """Not through a link either; and a bad pattern is the model's to mend."""
    (workspace / "a.py").write_text("def one():\n    return 1\n")
    (workspace / "b.bin").write_bytes(b"\0return")
    (workspace / ".env").write_text("return")
    (workspace / "link").symlink_to(".env")
    assert grep("ret.rn") == {"matches": 1, "lines": "a.py:2:     return 1"}
    assert grep("nothing") == {"matches": 0, "lines": ""}
    assert "not a regular expression" in grep("(")["error"]
    (workspace / "many.txt").write_text("hit\n" * 500)
    many = grep("hit")
    assert many["matches"] == 500 and "all 500 lines: .g4agent/out/1.txt" in many["lines"]
