"""Searching the workspace's text files by regular expression."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from g4agent.protected_paths import ProtectedPaths
from g4agent.tools import tool
from g4agent.workspace_files import Refusal, answers_refusals, locate
from g4agent_coding.private import OUTPUTS
from g4agent_coding.shaping import Shape, shape
from g4agent_coding.wide import READ_BYTES
from g4agent_coding.workspace import read_text, walk

SHOWN = Shape(head_lines=40, tail_lines=1)


@tool(effect="idempotent", timeout=30)
@answers_refusals
def grep(pattern: str, path: str = ".") -> dict[str, Any]:
    """Search text files.

    Args:
        pattern: Regular expression.
        path: File or folder.
    """
    try:
        wanted = re.compile(pattern)
    except re.error as error:
        raise Refusal(f"`pattern` is not a regular expression: {error}") from error
    target, protected = locate(path), ProtectedPaths()
    if not target.exists():
        raise Refusal(f"no file or folder {path}")
    root = Path.cwd().resolve()
    files = walk(target) if target.is_dir() else [target.relative_to(root).as_posix()]
    matches: list[str] = []
    for file in files:
        real = locate(file).relative_to(root).as_posix() if (root / file).resolve().is_relative_to(root) else ""
        if not real or (protected.unreadable(real) and not real.startswith(f"{OUTPUTS}/")):
            continue
        try:
            lines = read_text(file, READ_BYTES).splitlines()
        except Refusal:
            continue  # binary, too large or gone
        matches += [f"{file}:{number}: {line}" for number, line in enumerate(lines, 1) if wanted.search(line)]
    return {"matches": len(matches), "lines": shape("\n".join(matches), SHOWN) if matches else ""}
