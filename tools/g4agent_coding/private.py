"""`.g4agent`, the pack's own folder in the workspace: long outputs.

It ignores itself in git, belongs to no listing and may not be edited; of it only the outputs may be read.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from g4agent.protected_paths import ProtectedPaths
from g4agent.workspace_files import PRIVATE, Refusal, locate, private_folder

OUTPUTS = f"{PRIVATE}/out"
MAX_OUTPUTS = 30
MAX_OUTPUT_BYTES = 2 * 1024 * 1024


@contextmanager
def locked() -> Iterator[None]:
    """One change at a time: the calls of a step run in parallel."""
    with (private_folder() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def require_changeable(path: str) -> None:
    """Raises Refusal if the file, links followed, is outside the workspace or protected."""
    inside = locate(path).relative_to(Path.cwd().resolve()).as_posix()
    if refusal := ProtectedPaths().unchangeable(inside):
        raise Refusal(refusal)


def keep_output(text: str) -> str:
    """Stores a long output; gives the path under which `read_file` and `grep` find it. Only the latest are kept."""
    folder = private_folder("out")
    with locked():
        numbers = sorted(int(file.stem) for file in folder.glob("*.txt") if file.stem.isdigit())
        for old in numbers[: max(0, len(numbers) + 1 - MAX_OUTPUTS)]:
            (folder / f"{old}.txt").unlink()
        number = numbers[-1] + 1 if numbers else 1
        (folder / f"{number}.txt").write_bytes(text.encode(errors="replace")[:MAX_OUTPUT_BYTES])
    return f"{OUTPUTS}/{number}.txt"
