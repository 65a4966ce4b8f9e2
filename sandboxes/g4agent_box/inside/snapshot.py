"""A snapshot of the workspace, in which what the host has already is only named.

A snapshot is a tar archive in parts, one per file, folder or link. A part goes as its length, its bytes and its name, a
digest of all that it holds; one that the host holds from an earlier snapshot goes as length 0 and the name. Every file
is read each time: no time stamp tells what changed, as a write through a shared mapping can leave all of them as they
were (on tmpfs, where the page was read before).
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import tarfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from typing import IO

LENGTH = struct.Struct(">Q")
NAME_BYTES = 16
END = (1 << 64) - 1
"""As a length: there are no more parts."""
AT_ONCE = 1 << 20
"""Bytes of a file up to which it is held in memory, and read once."""
NO_NAME = bytes(NAME_BYTES)
"""Of a part that changed while it was sent."""


def send_parts(sink: IO[bytes], files: Iterable[tuple[str, os.stat_result]], held: Collection[bytes]) -> None:
    """Sends a snapshot of regular files, folders and links below the working directory; others are left out."""
    first: dict[int, str] = {}
    """Inode of a file with several names → its first one."""
    for path, status in files:
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFREG:
            target = first.setdefault(status.st_ino, path) if status.st_nlink > 1 else path
            if target == path:
                _send_file(sink, path, held)
            else:
                _send(sink, _member(path, status, tarfile.LNKTYPE, target), held)
        elif kind == stat.S_IFDIR:
            _send(sink, _member(path, status, tarfile.DIRTYPE), held)
        elif kind == stat.S_IFLNK:
            _send(sink, _member(path, status, tarfile.SYMTYPE, os.readlink(path)), held)
    sink.write(LENGTH.pack(END))


def _member(path: str, status: os.stat_result, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(path)
    member.type, member.linkname = kind, target
    member.mode, member.mtime = stat.S_IMODE(status.st_mode), status.st_mtime
    member.size = status.st_size if kind == tarfile.REGTYPE else 0
    return member


def _digest(member: tarfile.TarInfo) -> hashlib.blake2b:
    fields = (member.type, member.mode, member.mtime, member.size, member.linkname, member.name)
    return hashlib.blake2b(repr(fields).encode("utf-8", "surrogatepass"), digest_size=NAME_BYTES)


def _header(member: tarfile.TarInfo) -> bytes:
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _send(sink: IO[bytes], member: tarfile.TarInfo, held: Collection[bytes], content: bytes = b"") -> None:
    digest = _digest(member)
    digest.update(content)
    name = digest.digest()
    if name in held:
        sink.write(LENGTH.pack(0) + name)
    else:
        part = _header(member) + content + _padding(member.size)
        sink.write(LENGTH.pack(len(part)) + part + name)


def _send_file(sink: IO[bytes], path: str, held: Collection[bytes]) -> None:
    # O_NONBLOCK: what is a FIFO by now must not wait for its writer
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb", buffering=0) as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "it changed while it was archived", path)
        member = _member(path, status, tarfile.REGTYPE)
        if member.size <= AT_ONCE:
            _send(sink, member, held, _exactly(file, member.size))
        else:
            _send_large(sink, member, file, held)


def _send_large(sink: IO[bytes], member: tarfile.TarInfo, file: IO[bytes], held: Collection[bytes]) -> None:
    """Reads a file twice, so that it need not be held: is it known, and if not, what is in it?"""
    digest = _digest(member)
    for start in range(0, member.size, AT_ONCE):
        digest.update(_exactly(file, min(AT_ONCE, member.size - start)))
    name = digest.digest()
    if name in held:
        sink.write(LENGTH.pack(0) + name)
        return
    file.seek(0)
    header, padding = _header(member), _padding(member.size)
    sink.write(LENGTH.pack(len(header) + member.size + len(padding)) + header)
    sent = _digest(member)
    for start in range(0, member.size, AT_ONCE):
        data = _exactly(file, min(AT_ONCE, member.size - start))
        sent.update(data)
        sink.write(data)
    sink.write(padding + (name if sent.digest() == name else NO_NAME))


def _exactly(file: IO[bytes], size: int) -> bytes:
    """The next bytes of a file. Raises OSError where it became shorter."""
    data = file.read(size)
    while len(data) < size:
        more = file.read(size - len(data))
        if not more:
            raise OSError(0, "it changed while it was archived")
        data += more
    return data


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)
