"""Paths and files of the workspace, which is the current directory of every call."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from g4agent.workspace_files import Refusal, locate

MAX_FILE_BYTES = 64 * 1024
"""Largest file that is read or edited: more would not fit in a model's context."""

SKIPPED_FOLDERS = frozenset({"__pycache__", "node_modules"})
"""Not listed, and neither is any folder whose name begins with a dot."""


def read_text(path: str, max_bytes: int = MAX_FILE_BYTES) -> str:
    """A file's text, line ends untouched.

    Raises:
        Refusal: It is missing, a folder, a device or pipe, too large, or not UTF-8 text.
    """
    file = locate(path)
    try:
        status = file.stat()
    except OSError as error:
        raise Refusal(f"no file {path}") from error
    if stat.S_ISDIR(status.st_mode):
        raise Refusal(f"{path} is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise Refusal(f"{path} is not a regular file")
    if status.st_size > max_bytes:
        raise Refusal(f"{path} is too large: {status.st_size} bytes, the limit is {max_bytes}")
    try:
        text = file.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise Refusal(f"{path} is a binary file") from error
    except OSError as error:
        raise Refusal(f"cannot read {path}: {error.strerror}") from error
    if "\0" in text:
        raise Refusal(f"{path} is a binary file")
    return text


def write_text(path: str, text: str) -> None:
    """Replaces a file's text in one step; its permissions stay.

    Raises:
        Refusal: The text is too large, or the file cannot be written.
    """
    data = text.encode()
    if len(data) > MAX_FILE_BYTES:
        raise Refusal(f"{path} would be too large: {len(data)} bytes, the limit is {MAX_FILE_BYTES}")
    file = locate(path)
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as stream:
            temporary = Path(stream.name)
            try:
                stream.write(data)
                stream.flush()
                temporary.chmod(mode)
                temporary.replace(file)
            except BaseException:
                temporary.unlink()
                raise
    except OSError as error:
        raise Refusal(f"cannot write {path}: {error.strerror}") from error


def walk(folder: Path) -> Iterator[str]:
    """Workspace-relative paths of the files below a folder, sorted within each folder; links are not followed."""
    root = Path.cwd().resolve()
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in SKIPPED_FOLDERS and not name.startswith("."))
        for name in sorted(names):
            yield (Path(parent) / name).relative_to(root).as_posix()
