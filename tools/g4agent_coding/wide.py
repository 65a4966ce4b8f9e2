"""Tools for models with more room than the smallest: reading by lines, writing whole files, running commands."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from g4agent.protected_paths import ProtectedPaths
from g4agent.tools import tool
from g4agent_coding.private import OUTPUTS, locked, require_changeable
from g4agent_coding.shaping import shape
from g4agent_coding.workspace import CodingError, answers_refusals, locate, read_text, write_text

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
        raise CodingError(refusal)
    lines = read_text(path, READ_BYTES).replace("\r\n", "\n").splitlines()
    if start < 1 or start > max(1, len(lines)):
        raise CodingError(f"{path} has {len(lines)} lines")
    end = min(len(lines), start + READ_LINES - 1)
    return {"text": "\n".join(lines[start - 1 : end]), "lines": f"{start}-{end} of {len(lines)}"}


@tool(effect="idempotent")
@answers_refusals
def write_file(path: str, text: str) -> dict[str, Any]:
    """Write a file, new or in place of the old one.

    Args:
        path: File.
        text: All of its text.
    """
    require_changeable(path)
    file = locate(path)
    with locked():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        except OSError as error:
            raise CodingError(f"cannot write {path}: {error.strerror}") from error
        write_text(path, text)
    return {"path": path, "lines": len(text.splitlines())}


@tool(effect="once", timeout=COMMAND_SECONDS + 20)
@answers_refusals
def run_command(command: str) -> dict[str, Any]:
    """Run a shell command in the workspace.

    Args:
        command: For sh.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            ["sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            ended: dict[str, Any] = {"exit_code": process.wait(COMMAND_SECONDS)}
        except subprocess.TimeoutExpired:
            ended = {"error": f"no end after {COMMAND_SECONDS:g} s"}
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        return {**ended, "output": shape(output.read().decode(errors="replace"))}
