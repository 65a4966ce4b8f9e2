"""Which files live processes use: those are never cleaned up, whatever the quota.

Each user of the folder lists the names it needs in a file of its own and holds a lock on it. The lock goes with the
process, however that ends, so a list without one is a dead process's and counts for nothing.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def guard(folder: Path, *, alone: bool) -> Iterator[None]:
    """Keeps clean-up (`alone`) and pinning apart: a file is pinned before a clean-up looks, or after it is done."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


class Pins:
    """The names that one user needs. What is pinned and there stays there until `close`, or the end of the process.

    Args:
        folder: That of the pages.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: set[str] = set()
        (folder / "pins").mkdir(mode=0o700, exist_ok=True)
        self.path = folder / "pins" / f"{os.getpid()}-{secrets.token_hex(8)}"
        with guard(folder, alone=False):
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def add(self, names: Iterable[str]) -> None:
        """Pins files, there or not. Look for them afterwards: they may just have gone."""
        new = [name for name in names if name not in self._names]
        if new:
            with guard(self._folder, alone=False):
                os.write(self._file, "".join(f"{name}\n" for name in new).encode())
            self._names.update(new)

    def close(self) -> None:
        """Unpins everything. Harmless when closed already."""
        if self._file >= 0:
            self.path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1


def pinned_names(folder: Path, *, but: Path | None = None) -> set[str]:
    """What live processes have pinned; lists of dead ones are removed. Call it within `guard(alone=True)`.

    Args:
        folder: That of the pages.
        but: A list that does not count.
    """
    names: set[str] = set()
    for path in (folder / "pins").glob("*"):
        with suppress(FileNotFoundError):  # closed meanwhile
            if path == but:
                continue
            if _is_held(path):
                names.update(path.read_text().splitlines())
            else:
                path.unlink()
    return names


def _is_held(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
