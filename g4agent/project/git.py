"""git on the host: without hooks and questions, and a repository of its own in which states are compared."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from g4agent.errors import ConfigError
from g4agent.project.entries import Entries

AUTHOR = ("g4agent", "g4agent@localhost")
SETTINGS = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "core.quotePath=false")


def run_git(
    arguments: Sequence[str],
    folder: Path,
    *,
    stdin: bytes = b"",
    codes: Sequence[int] = (0,),
    env: Mapping[str, str] | None = None,
) -> bytes:
    """git's standard output.

    Raises:
        ConfigError: git is not installed, or ends with another code than these.
    """
    options = [word for setting in SETTINGS for word in ("-c", setting)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    variables = {**inherited, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8", **(env or {})}
    try:
        done = subprocess.run(
            ["git", *options, *arguments], cwd=folder, input=stdin, capture_output=True, env=variables
        )
    except FileNotFoundError as error:
        raise ConfigError("git is not installed", hint="It tells what a run changed: install it.") from error
    if done.returncode not in codes:
        said = done.stderr.decode(errors="replace").strip()
        raise ConfigError(f"git {arguments[0]} failed in {folder}: {said}")
    return done.stdout


def is_repository(folder: Path) -> bool:
    """Whether a folder is, or lies in, the working tree of a git repository."""
    return run_git(["rev-parse", "--is-inside-work-tree"], folder, codes=(0, 128)).strip() == b"true"


def names(listed: bytes) -> list[str]:
    """Paths that git ended with NULs. Bytes that are not UTF-8 become surrogates, as Python's own paths have them."""
    return [os.fsdecode(name) for name in listed.split(b"\0")[:-1]]


class Scratch:
    """A bare repository in a temporary folder."""

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="g4agent-project-")
        self.folder = Path(self._temporary.name)

    def __enter__(self) -> Scratch:
        self.git("init", "--quiet", "--bare", "--template=", "--initial-branch=main")
        return self

    def __exit__(self, *exc: object) -> None:
        self._temporary.cleanup()

    def git(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """Runs git on this repository."""
        return run_git(["--git-dir", str(self.folder), *arguments], self.folder, stdin=stdin)

    def commit(self, *states: tuple[Entries, str], branch: str = "refs/heads/main", start: str | None = None) -> None:
        """Commits states on a branch in turn, each with its message; the first one after `start`, if there is one."""
        parts = (part for entries, message in states for part in _stream(branch, entries, message))
        origin = b"" if start is None else f"reset {branch}\nfrom {start}\n".encode()
        self.git("fast-import", "--quiet", "--force", stdin=origin + b"".join(parts))

    def diff(self, before: Entries, after: Entries) -> str:
        """The difference as a patch that `git apply` takes. Bytes that are not UTF-8 come as surrogates."""
        self.commit((before, "before"), (after, "after"))
        options = ["--binary", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames"]
        return self.git("diff", *options, "main~", "main").decode(errors="surrogateescape")


def _stream(branch: str, entries: Entries, message: str) -> Iterator[bytes]:
    """What makes `git fast-import` commit exactly these entries."""
    name, address = AUTHOR
    text = message.encode()
    yield f"commit {branch}\ncommitter {name} <{address}> {int(time.time())} +0000\n".encode()
    yield b"data %d\n%s\n" % (len(text), text)
    yield b"deleteall\n"
    for path, entry in entries.items():
        yield b"M %o inline %s\ndata %d\n%s\n" % (entry.mode, _quoted(path), len(entry.data), entry.data)


def _quoted(path: str) -> bytes:
    """A path in quotes, as git's streams take any."""
    return b'"' + os.fsencode(path).replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n") + b'"'
