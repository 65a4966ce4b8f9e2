"""Clean-up: when the folder is over its quota, what was used longest ago goes first, ends of sequences before starts.

A page is of no use without those before it. So a file counts as used when anything that follows from it was, and among
files of one age the deepest goes first.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from g4agent_torch.pages.page_file import PART
from g4agent_torch.pages.pins import guard, pinned_names

KEPT: Final = 0.9
"""Share of the quota that a clean-up leaves, so that not every new page brings on another one."""
ABANDONED_SECONDS: Final = 3600.0
"""Age from which a half-written file is nobody's."""
NAME: Final = re.compile(r"[0-9a-f]{64}-\d+-[0-9a-f]{64}\.(page|rows)")
"""Of our files."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of the folder. Names are `parent-tokens-address.kind`."""

    path: Path
    size: int
    used: float
    """Time of its last use."""

    @property
    def parent(self) -> str:
        return self.path.name.partition("-")[0]

    @property
    def tokens(self) -> int:
        return int(self.path.name.split("-")[1])

    @property
    def address(self) -> str:
        return self.path.stem.rpartition("-")[2]


def files(folder: Path) -> Iterator[File]:
    """All whole files, in no order; what others have put there (`.DS_Store`, `.nfs0001`) is none of ours."""
    for path in folder.glob("[0-9a-f][0-9a-f]/*"):
        with suppress(FileNotFoundError):  # removed meanwhile
            found = path.stat()
            if NAME.fullmatch(path.name):
                yield File(path, found.st_size, found.st_mtime)
            elif path.suffix == PART and time.time() - found.st_mtime > ABANDONED_SECONDS:
                path.unlink()


def clean_up(folder: Path, quota: int) -> int:
    """Brings the folder under its quota as far as pinned files allow; returns the bytes that were freed."""
    freed = 0
    with guard(folder, alone=True):
        present = list(files(folder))
        excess = sum(file.size for file in present) - quota
        if excess <= 0:
            return 0
        excess += int(quota * (1 - KEPT))
        pinned = pinned_names(folder)
        for file in _by_age(present):
            if freed >= excess:
                break
            if file.path.name not in pinned:
                file.path.unlink(missing_ok=True)
                freed += file.size
    return freed


def _by_age(present: list[File]) -> list[File]:
    """In the order in which they can be done without."""
    used: dict[str, float] = {}
    parents = {file.address: file.parent for file in present}
    for file in sorted(present, key=lambda file: -file.used):
        at: str | None = file.address
        while at is not None and used.get(at, -1.0) < file.used:
            used[at] = file.used
            at = parents.get(at)
    depths: dict[str, int] = {}
    for address in parents:
        way = []
        at = address
        while at in parents and at not in depths:
            way.append(at)
            at = parents[at]
        depth = depths.get(at, 0)
        for step in reversed(way):
            depth += 1
            depths[step] = depth
    return sorted(present, key=lambda file: (used[file.address], -depths[file.address], file.path.suffix != ".rows"))
