"""Files and links by path: on disk, and in the archives that a box restores and gives."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

from g4agent.protected_paths import ProtectedPaths

PLAIN: Literal[0o100644] = 0o100644
EXECUTABLE: Literal[0o100755] = 0o100755
LINK: Literal[0o120000] = 0o120000


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or symbolic link. Two are equal if git would say so."""

    data: bytes
    """The content, or what the link says."""
    mode: Literal[0o100644, 0o100755, 0o120000] = PLAIN
    """As git writes it."""


Entries: TypeAlias = Mapping[str, Entry]
"""By path relative to a folder."""


def read_entry(file: Path) -> Entry | None:
    """A file or link as it is now; None for anything else."""
    if file.is_symlink():
        return Entry(os.fsencode(file.readlink()), LINK)
    if not file.is_file():
        return None
    return Entry(file.read_bytes(), EXECUTABLE if file.stat().st_mode & 0o100 else PLAIN)


def write_entry(file: Path, entry: Entry) -> None:
    """Makes a file or link where there is none, and leaves its content on the disk."""
    if entry.mode == LINK:
        file.symlink_to(os.fsdecode(entry.data))
        return
    with file.open("xb") as stream:
        stream.write(entry.data)
        stream.flush()
        os.fsync(stream.fileno())
    if entry.mode == EXECUTABLE:
        mode = file.stat().st_mode
        file.chmod(mode | (mode & 0o444) >> 2)  # for all who may read it


def write_archive(entries: Entries) -> bytes:
    """A tar archive of the entries."""
    buffer, now = io.BytesIO(), int(time.time())
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, entry in entries.items():
            member = tarfile.TarInfo(path)
            member.mtime, member.mode = now, entry.mode & 0o777
            if entry.mode == LINK:
                member.type, member.linkname = tarfile.SYMTYPE, os.fsdecode(entry.data)
                archive.addfile(member)
            else:
                member.size = len(entry.data)
                archive.addfile(member, io.BytesIO(entry.data))
    return buffer.getvalue()


def read_archive(archive: bytes) -> dict[str, Entry]:
    """The files and links of a snapshot. Nothing is extracted."""
    entries = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
        for member in tar:
            path = PurePosixPath(member.name).as_posix()
            if member.issym():
                entries[path] = Entry(os.fsencode(member.linkname), LINK)
            elif member.isreg() or member.islnk():  # of a hard link, the content
                content = tar.extractfile(member)
                assert content is not None
                entries[path] = Entry(content.read(), EXECUTABLE if member.mode & 0o100 else PLAIN)
    return entries


def regular_files(archive: bytes) -> dict[str, bytes]:
    """The contents of a snapshot's regular files, without what is no part of the project."""
    paths = ProtectedPaths()
    return {
        path: entry.data
        for path, entry in read_archive(archive).items()
        if entry.mode != LINK and not paths.is_internal(path)
    }
