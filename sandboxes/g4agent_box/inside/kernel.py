"""The few Linux calls that Python's standard library lacks, and the process tree as /proc shows it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import struct
import time

_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_BENEATH = 0x08

_CAPABILITY_VERSION_3 = 0x20080522

CAP_CHOWN = 0
KILL_PATIENCE = 5.0
"""Seconds to wait for killed processes to be gone; the kernel takes milliseconds unless one hangs in a device."""

_libc = ctypes.CDLL(None, use_errno=True)


def check() -> None:
    """Ends the process, with a reason, where the kernel lacks what a box needs, as gVisor's of old does."""
    try:
        os.close(os.pidfd_open(os.getpid()))
        here = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.close(open_beneath(here, ".", os.O_RDONLY | os.O_DIRECTORY))
        os.close(here)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            raise SystemExit("the kernel in here lacks pidfd_open or openat2 (Linux has them since 5.6)") from None
        raise


def set_dumpable(value: bool) -> None:
    """Whether processes of the same user may look into this one through /proc. A new program starts dumpable."""
    _libc.prctl(_PR_SET_DUMPABLE, int(value), 0, 0, 0)


def become_user(user: int | None) -> None:
    """Gives up the present user, its groups and all capabilities for `user`; None, or the same one, changes nothing.

    The kernel makes a process that did this undumpable.
    """
    if user is None or user == os.getuid():
        return
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def give_up_capability(number: int) -> None:
    """Takes a capability below 32 from the calling process, for good. Raises OSError."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    sets = ctypes.create_string_buffer(24)  # effective, permitted, inheritable; then their upper halves
    if _libc.capget(header, sets) == 0:
        words = struct.unpack("=6I", sets.raw)
        if _libc.capset(header, struct.pack("=6I", *(word & ~(1 << number) for word in words[:3]), *words[3:])) == 0:
            return
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number))


def become_subreaper() -> None:
    """Makes orphans among this process's descendants its own children, however they detached themselves."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def open_beneath(directory: int, path: str, flags: int, mode: int = 0) -> int:
    """`openat2` that fails with EXDEV where `path` would leave `directory`, by `..`, an absolute path or a link.

    Raises:
        OSError: As `open`.
    """
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
    fd: int = _libc.syscall(_SYS_OPENAT2, directory, os.fsencode(path), how, len(how))
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return fd


def _parents() -> dict[int, int]:
    """Parent of every process that is not a zombie."""
    parents = {}
    with os.scandir("/proc") as entries:
        pids = [int(entry.name) for entry in entries if entry.name.isdigit()]
    for pid in pids:
        with contextlib.suppress(OSError):
            state, parent = read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()[:2]
            if state not in "ZX":
                parents[pid] = int(parent)
    return parents


def read_text(path: str) -> str:
    """A small file of /proc."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 65536).decode(errors="replace")
    finally:
        os.close(fd)


def descendants(roots: set[int]) -> set[int]:
    """Living processes below `roots`, without them."""
    parents = _parents()
    found: set[int] = set()
    grown = True
    while grown:
        new = {pid for pid, parent in parents.items() if parent in roots | found} - found - roots
        found |= new
        grown = bool(new)
    return found


def exists(pid: int) -> bool:
    """Whether there is such a process, be it a zombie."""
    return os.path.exists(f"/proc/{pid}")


def children(parent: int) -> set[int]:
    """Living children of a process."""
    return {pid for pid, above in _parents().items() if above == parent}


def send_signal(pids: set[int], number: int) -> None:
    """Signals each process that still exists."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def kill_descendants(roots: set[int], *, including_roots: bool) -> None:
    """SIGKILL for a whole tree, also one that forks as fast as it is killed; on return it runs no more.

    Everything is stopped first: a stopped process keeps its place under the box's process limit, so that a fork bomb
    runs out of room instead of refilling the places of the killed.
    """
    stopped: set[int] = set()
    while new := (descendants(roots) | (roots if including_roots else set())) - stopped:
        send_signal(new, signal.SIGSTOP)
        stopped |= new
    send_signal(stopped, signal.SIGKILL)
    deadline = time.monotonic() + KILL_PATIENCE
    while stopped & _parents().keys() and time.monotonic() < deadline:
        time.sleep(0.0005)


def kill_and_reap_descendants() -> int:
    """Ends all descendants of the calling subreaper and waits for them; gives the largest peak memory among them, KiB.

    Raises:
        TimeoutError: One hangs.
    """
    deadline = time.monotonic() + KILL_PATIENCE
    me = os.getpid()
    peak = 0
    while time.monotonic() < deadline:
        try:
            while (ended := os.wait4(-1, os.WNOHANG))[0]:
                peak = max(peak, ended[2].ru_maxrss)
        except ChildProcessError:
            return peak
        kill_descendants({me}, including_roots=False)
    raise TimeoutError(f"killed processes are still there after {KILL_PATIENCE:g} s")
