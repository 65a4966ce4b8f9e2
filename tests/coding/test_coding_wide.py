"""The tools for larger models."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest
from debian import install

from g4agent import Agent
from g4agent.testing import ScriptedModel, call, say
from g4agent.toolset import ToolSet
from g4agent_coding import tools
from g4agent_coding.files import edit_file
from g4agent_coding.finding import find_files
from g4agent_coding.process import KEPT_BYTES, run
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


PATTERNS = [r"ret\w+ 1", r"(?<=def )one", r"(t)\1", "one$", "^x", "[a&&b]z", r"\bÄrger\b", "a{", "-e", "nothing"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_grep_finds_the_same_with_ripgrep_and_without(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    """What is found must not hang on the machine: ripgrep has another syntax, and its own idea of what to skip."""
    if shutil.which("rg") is None:
        install("ripgrep")
    files = {
        "a.py": "def one():\n    return 1\n",
        "dos.txt": "one\r\nx: Ärger, letter\r\n",
        "ignored.log": "def one(): return 1 a{ -e &z\n",
        ".gitignore": "*.log\n",
        "sub/.hidden": "return 1\n",
        ".folder/b.py": "return 1\n",
        "node_modules/c.js": "return 1\n",
    }
    for path, text in files.items():
        (workspace / path).parent.mkdir(exist_ok=True)
        (workspace / path).write_bytes(text.encode())
    (workspace / "link.py").symlink_to("a.py")
    with_it = grep(pattern)
    monkeypatch.setenv("PATH", "")
    assert with_it == grep(pattern) and (with_it["matches"] > 0) == (pattern != "nothing")


def test_files_are_found_by_name(workspace: Path) -> None:
    """A bare pattern is one of names anywhere; one with a slash is of paths from the folder."""
    for path in ("a.py", "src/b.py", "src/deep/test_c.py", "src/.hidden/d.py"):
        (workspace / path).parent.mkdir(parents=True, exist_ok=True)
        (workspace / path).touch()
    assert find_files("*.py") == {"files": 3, "paths": "a.py\nsrc/b.py\nsrc/deep/test_c.py"}
    assert find_files("src/*.py")["paths"] == "src/b.py"
    assert find_files("src/**/*.py")["files"] == 2 and find_files("**/b.py")["files"] == 1
    assert find_files("*.py", "src/deep")["paths"] == "src/deep/test_c.py"
    assert find_files("*.rs") == {"files": 0, "paths": ""}


def test_a_flood_of_output_does_not_fill_the_memory() -> None:
    """Head and tail are kept; the program goes on to its end."""
    ended = run(["sh", "-c", "yes | head -c 50000000; echo END"], 30)
    assert ended.exit_code == 0 and ended.output.endswith("END\n") and len(ended.output) < 3 * KEPT_BYTES


def test_the_full_set_has_each_name_once_and_says_what_repeating_does() -> None:
    """A model chooses by name; crash recovery by effect."""
    assert {tool.name: tool.effect for tool in ToolSet(tools(full=True)).values()} == {
        **dict.fromkeys(("list_files", "read_file", "git_log"), "pure"),
        **dict.fromkeys(("find_files", "grep", "edit_file", "write_file", "run_tests", "git_diff"), "idempotent"),
        **dict.fromkeys(("apply_patch", "undo", "run_command", "git_commit"), "once"),
    }
