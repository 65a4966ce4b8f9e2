"""Runs as root for a moment, between the host process and bwrap: makes paths reachable and gives up root.

    python -I -S launch.py UID GID NUMBER_OF_PATHS PATHS... COMMAND...

The box must not map to the host's root, so bwrap runs as an unprivileged user without capabilities. That user may not
reach what the box shows, such as an interpreter in /root (mode 0700). In a mount namespace of its own, this program
covers each folder that bars the way with an empty one and puts back, below it, only the paths that the box shows.

Source: open_tree(2), move_mount(2), mount_namespaces(7).
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys

_AT_FDCWD = -100
_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_SLAVE, _MS_NOSUID, _MS_NODEV = 0x4000, 0x80000, 0x2, 0x4
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT = 428, 429
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC, _AT_RECURSIVE = 1, os.O_CLOEXEC, 0x8000
_MOVE_MOUNT_F_EMPTY_PATH = 4

_libc = ctypes.CDLL(None, use_errno=True)


def blocked_by(path: str) -> str | None:
    """The topmost folder on the way to `path` that strangers may not pass, if there is one."""
    folder = "/"
    for part in path.strip("/").split("/")[:-1]:
        folder = os.path.join(folder, part)
        if not os.stat(folder).st_mode & stat.S_IXOTH:
            return folder
    return None


def make_reachable(paths: list[str]) -> None:
    """Lets strangers reach `paths` in a new mount namespace of the calling process. Raises OSError."""
    blocked = {path: folder for path in paths if (folder := blocked_by(path)) is not None}
    if not blocked:
        return
    _check(_libc.unshare(_CLONE_NEWNS), "unshare")
    _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_SLAVE, None), "mount")
    trees = {path: _open_tree(path) for path in sorted(blocked)}
    directories = {path: os.path.isdir(path) for path in blocked}
    for folder in set(blocked.values()):
        _check(_libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", _MS_NOSUID | _MS_NODEV, b"mode=0755"), folder)
    for path, tree in trees.items():
        if not os.path.lexists(path):
            _make_mount_point(path, directory=directories[path])
        target = os.fsencode(path)
        _check(_libc.syscall(_SYS_MOVE_MOUNT, tree, b"", _AT_FDCWD, target, _MOVE_MOUNT_F_EMPTY_PATH), path)
        os.close(tree)


def _open_tree(path: str) -> int:
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _AT_RECURSIVE
    return _check(_libc.syscall(_SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags), path)


def _make_mount_point(path: str, *, directory: bool) -> None:
    os.makedirs(path if directory else os.path.dirname(path), mode=0o755, exist_ok=True)
    if not directory:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def main() -> None:
    """Prepares, gives up root for good and becomes the command."""
    uid, gid, number, *words = sys.argv[1:]
    paths, command = words[: int(number)], words[int(number) :]
    os.umask(0o022)
    try:
        make_reachable(paths)
    except OSError as error:
        sys.exit(f"cannot make the box's files reachable for user {uid}: {error}")
    os.setgroups([])
    os.setresgid(int(gid), int(gid), int(gid))
    os.setresuid(int(uid), int(uid), int(uid))
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
