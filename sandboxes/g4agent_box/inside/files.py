"""The workspace's files, as a process inside the box handles them: no link is ever followed on the host.

Every path is resolved by the kernel beneath the workspace (`openat2`, RESOLVE_BENEATH), so that neither `..` nor a
symbolic link swapped in at the wrong moment leads out.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import tarfile
from collections.abc import Callable, Iterator
from typing import IO, cast

from g4agent_box.inside import kernel
from g4agent_box.inside.protocol import CHUNK, TO_THE_END, Head, pack_head, receive_head, send_frame
from g4agent_box.inside.snapshot import NAME_BYTES, send_parts

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


class Refused(Exception):
    """A path or an archive member that may not be used; the text goes to the caller."""


class Workspace:
    """The operations behind `Box.read_file`, `write_file`, `list_files`, `snapshot` and `restore`."""

    def __init__(self, connection: socket.socket, root: str) -> None:
        self._connection = connection
        self._root = os.open(root, DIRECTORY | os.O_CLOEXEC)
        self._device = os.fstat(self._root).st_dev

    def serve(self) -> None:
        """Reads one request, does it and answers."""
        head, body_length = receive_head(self._connection)
        operation: Callable[[Head, int], None] = getattr(self, f"_{head['op']}")
        try:
            operation(head, body_length)
        except ConnectionError:
            raise
        except (Refused, OSError) as error:
            path = head.get("path", "the workspace")
            text = f"{path}: {error.strerror}" if isinstance(error, OSError) else str(error)
            while self._connection.recv(CHUNK):  # what is left unread would tear down the connection, answer included
                pass
            send_frame(self._connection, {"refused": text})

    def _read(self, head: Head, body_length: int) -> None:
        # O_NONBLOCK: opening a FIFO must not wait for its writer
        fd = kernel.open_beneath(self._root, head["path"], os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        with open(fd, "rb", buffering=0) as file:
            size = _regular_size(fd, head["path"])
            if size > head["max_bytes"]:
                raise Refused(f"{head['path']} has {size} bytes, more than {head['max_bytes']}")
            data = file.read(head["max_bytes"]) or b""
        send_frame(self._connection, {}, data)

    def _write(self, head: Head, body_length: int) -> None:
        with self._stream(body_length) as source:
            self._put(head["path"], source, body_length, 0o755 if head["executable"] else 0o644)
        send_frame(self._connection, {})

    def _list(self, head: Head, body_length: int) -> None:
        start = kernel.open_beneath(self._root, head["path"], DIRECTORY)
        paths = [path for path, status in self._walk(start) if stat.S_ISREG(status.st_mode)]
        send_frame(self._connection, {"paths": sorted(paths)})

    def _snapshot(self, head: Head, body_length: int) -> None:
        """Sent as it is made, so that the box never holds it."""
        with self._stream(body_length) as source:
            names = source.read()
        held = {names[start : start + NAME_BYTES] for start in range(0, len(names), NAME_BYTES)}
        self._connection.sendall(pack_head({}, TO_THE_END))
        os.fchdir(self._root)
        with self._connection.makefile("wb", buffering=CHUNK) as sink:
            send_parts(cast(IO[bytes], sink), sorted(self._walk(self._root)), held)

    def _restore(self, head: Head, body_length: int) -> None:
        self._clear()
        with self._stream(body_length) as source, tarfile.open(fileobj=cast(IO[bytes], source), mode="r|") as archive:
            for member in archive:
                self._extract(archive, member)
            while source.read(CHUNK):
                pass
        send_frame(self._connection, {})

    def _extract(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Puts back one member. A symbolic link is kept as it is: it is never followed out of the workspace."""
        parent, name = self._parent(member.name)
        try:
            if member.isreg():
                content = archive.extractfile(member)
                assert content is not None
                self._put(member.name, content, member.size, member.mode & 0o777)
                os.utime(name, (member.mtime, member.mtime), dir_fd=parent)
            elif member.isdir():
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, dir_fd=parent)
            elif member.issym():
                os.symlink(member.linkname, name, dir_fd=parent)
            elif member.islnk():
                target_parent, target = self._parent(member.linkname)
                os.link(target, name, src_dir_fd=target_parent, dst_dir_fd=parent, follow_symlinks=False)
                os.close(target_parent)
            else:
                raise Refused(f"{member.name} is neither a file, nor a folder, nor a link")
        finally:
            os.close(parent)

    def _put(self, path: str, source: IO[bytes] | _Bounded, length: int, mode: int) -> None:
        """Writes a file under a temporary name and moves it into place: readers see the old one or the new one."""
        parent, name = self._parent(path)
        temporary = f".g4agent-{os.getpid()}.part"
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=parent)
            try:
                with open(fd, "wb", buffering=0) as file:
                    while length > 0:
                        data = source.read(min(CHUNK, length))
                        if not data:
                            raise ConnectionError("the content ended early")
                        length -= len(data)
                        _write_all(file.fileno(), data)
                    os.fchmod(file.fileno(), mode | stat.S_IRUSR)
                os.replace(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=parent)
                raise
        finally:
            os.close(parent)

    def _parent(self, path: str) -> tuple[int, str]:
        """The opened folder that holds `path`, made where it is missing, and the last part of the path."""
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if not parts or path.startswith("/") or ".." in parts:
            raise Refused(f"{path!r} is not a path in the workspace")
        folder = os.dup(self._root)
        for part in parts[:-1]:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=folder)
            deeper = kernel.open_beneath(folder, part, DIRECTORY | os.O_NOFOLLOW)
            os.close(folder)
            folder = deeper
        return folder, parts[-1]

    def _walk(self, start: int) -> list[tuple[str, os.stat_result]]:
        """Everything below a folder, without following links or leaving the workspace's file system.

        What a tool has locked (`chmod 000`) is opened to its owner again: a snapshot must hold all of the workspace.
        """
        found = []
        for folder, directories, files, fd in os.fwalk(".", dir_fd=start):
            for name in directories + files:
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if status.st_dev == self._device:
                    _unlock(name, fd, status.st_mode)
                    found.append((os.path.normpath(f"{folder}/{name}"), status))
            directories[:] = [name for name in directories if _on_device(name, fd, self._device)]
        return found

    def _clear(self) -> None:
        self._walk(self._root)  # unlocks what is to be removed
        for name in os.listdir(self._root):
            if stat.S_ISDIR(os.stat(name, dir_fd=self._root, follow_symlinks=False).st_mode):
                shutil.rmtree(name, dir_fd=self._root)
            else:
                os.unlink(name, dir_fd=self._root)

    @contextlib.contextmanager
    def _stream(self, length: int) -> Iterator[_Bounded]:
        """The request's raw bytes as a file."""
        with self._connection.makefile("rb", buffering=CHUNK) as file:
            yield _Bounded(cast(IO[bytes], file), length)


class _Bounded:
    """The next `length` bytes of a file."""

    def __init__(self, file: IO[bytes], length: int) -> None:
        self._file = file
        self._left = length

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data


def _regular_size(fd: int, path: str) -> int:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise Refused(f"{path} is not a regular file")
    return status.st_size


def _unlock(name: str, folder: int, mode: int) -> None:
    """Gives the owner of a folder or a regular file the rights to go through it."""
    needed = stat.S_IRWXU if stat.S_ISDIR(mode) else stat.S_IRUSR if stat.S_ISREG(mode) else 0
    if mode & needed != needed:
        os.chmod(name, stat.S_IMODE(mode) | needed, dir_fd=folder)


def _on_device(name: str, folder: int, device: int) -> bool:
    return os.stat(name, dir_fd=folder, follow_symlinks=False).st_dev == device


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
