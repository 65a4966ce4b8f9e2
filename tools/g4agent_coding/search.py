"""Searching the workspace's text files by regular expression.

ripgrep, where the box has it, says which files are worth reading; what matches in them is Python's word either way, so
that a search gives the same with it and without.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from g4agent.protected_paths import ProtectedPaths
from g4agent.tools import tool
from g4agent.workspace_files import Refusal, answers_refusals, locate
from g4agent_coding.private import OUTPUTS
from g4agent_coding.process import KEPT_BYTES, run
from g4agent_coding.shaping import Shape, shape
from g4agent_coding.wide import READ_BYTES
from g4agent_coding.workspace import SKIPPED_FOLDERS, read_text, walk

RIPGREP = ["rg", "--files-with-matches", "--null", "--no-config", "--no-ignore", "--hidden", "--no-messages", "--crlf"]
RIPGREP_SECONDS = 20.0
OTHERS_MEANING = ("&&", "--", "~~", "[[")
"""In a set of characters, operators for ripgrep and plain characters for Python."""
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
    worth_reading = _found_by_ripgrep(pattern, target) if target.is_dir() else None
    matches: list[str] = []
    for file in files:
        if worth_reading is not None and root / file not in worth_reading and not (root / file).is_symlink():
            continue
        real = locate(file).relative_to(root).as_posix() if (root / file).resolve().is_relative_to(root) else ""
        if not real or (protected.unreadable(real) and not real.startswith(f"{OUTPUTS}/")):
            continue
        try:
            lines = read_text(file, READ_BYTES).splitlines()
        except Refusal:
            continue  # binary, too large or gone
        matches += [f"{file}:{number}: {line}" for number, line in enumerate(lines, 1) if wanted.search(line)]
    return {"matches": len(matches), "lines": shape("\n".join(matches), SHOWN) if matches else ""}


def _found_by_ripgrep(pattern: str, folder: Path) -> set[Path] | None:
    """The folder's files, links left out, that have a match; None where ripgrep is not there or cannot tell."""
    if shutil.which(RIPGREP[0]) is None or any(sign in pattern for sign in OTHERS_MEANING):
        return None
    skipped = [word for name in (".*", *SKIPPED_FOLDERS) for word in ("--glob", f"!{name}/")]
    limit = ["--max-filesize", str(READ_BYTES)]
    ended = run([*RIPGREP, *skipped, *limit, f"--regexp={pattern}", "./"], RIPGREP_SECONDS, folder=folder)
    if ended.exit_code not in (0, 1) or len(ended.output) > KEPT_BYTES // 4:
        return None  # a pattern of Python's own, too long a search, or more files than `run` keeps
    return {folder / name for name in ended.output.split("\0") if name}
