"""Tools for models with more room than the smallest: reading by lines, writing whole files, running commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from g4agent.protected_paths import ProtectedPaths
from g4agent.tools import tool
from g4agent.workspace_files import Refusal, answers_refusals, locate
from g4agent_coding.files import edit_file
from g4agent_coding.history import remember
from g4agent_coding.private import OUTPUTS, locked, require_changeable
from g4agent_coding.process import run
from g4agent_coding.shaping import shape
from g4agent_coding.workspace import read_text, write_text

READ_LINES = 200
READ_BYTES = 1024 * 1024
COMMAND_SECONDS = 120.0


@tool(name="read_file", effect="pure")
@answers_refusals
def read_lines(path: str, start: int = 1) -> dict[str, Any]:
    """Read up to 200 lines of a text file.

    Args:
        path: File.
        start: First line, from 1.
    """
    inside = locate(path).relative_to(Path.cwd().resolve()).as_posix()
    if not inside.startswith(f"{OUTPUTS}/") and (refusal := ProtectedPaths().unreadable(inside)):
        raise Refusal(refusal)
    lines = read_text(path, READ_BYTES).replace("\r\n", "\n").splitlines()
    if start < 1 or start > max(1, len(lines)):
        raise Refusal(f"{path} has {len(lines)} lines")
    end = min(len(lines), start + READ_LINES - 1)
    return {"text": "\n".join(lines[start - 1 : end]), "lines": f"{start}-{end} of {len(lines)}"}


@tool(name="edit_file", effect="idempotent")
@answers_refusals
def edit_text(path: str, old: str, new: str) -> dict[str, Any]:
    """Replace text in a file.

    Args:
        path: File.
        old: Text to replace, occurs once.
        new: New text.
    """
    require_changeable(path)
    remember("edit_file")
    edited: dict[str, Any] = edit_file(path, old, new)
    return edited


@tool(effect="idempotent")
@answers_refusals
def write_file(path: str, text: str) -> dict[str, Any]:
    """Write a file, new or in place of the old one.

    Args:
        path: File.
        text: All of its text.
    """
    require_changeable(path)
    remember("write_file")
    file = locate(path)
    with locked():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        except OSError as error:
            raise Refusal(f"cannot write {path}: {error.strerror}") from error
        write_text(path, text)
    return {"path": path, "lines": len(text.splitlines())}


@tool(effect="once", timeout=COMMAND_SECONDS + 20)
@answers_refusals
def run_command(command: str) -> dict[str, Any]:
    """Run a shell command in the workspace.

    Args:
        command: For sh.
    """
    remember("run_command")
    ended = run(["sh", "-c", command], COMMAND_SECONDS)
    how = (
        {"error": f"no end after {COMMAND_SECONDS:g} s"} if ended.exit_code is None else {"exit_code": ended.exit_code}
    )
    return {**how, "output": shape(ended.output)}
