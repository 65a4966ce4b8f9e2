"""Control groups, version 1, 2 or both: what limits a box's memory, processes and processor time as a whole.

Each controller is looked for in version 1 first, then in version 2. A box gets one group per hierarchy, named after its
owner (`label`), so that the groups of a killed owner can be found and removed.

Source: cgroups(7), Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/ of the kernel.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from g4agent.ports.sandbox import LimitName, Limits

HOST_LEAF = "g4agent-host"
"""Where this process moves to in a delegated version 2 group: only a group without processes may share out limits."""
CONTROLLERS: dict[str, LimitName] = {"memory": "memory", "pids": "processes", "cpu": "cpu"}
CPU_PERIOD = 100_000
"""Microseconds."""
OWN_PROCESSES = 64
"""Places kept for the box's own processes, which a fork bomb in the box cannot take (it has RLIMIT_NPROC on top)."""
REMOVE_PATIENCE = 5.0
"""Seconds in which killed processes must have left a group."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A place where groups with one controller can be made."""

    version: int
    parent: Path


@dataclass(frozen=True, slots=True)
class Cgroups:
    """The controllers that this process may use."""

    mounts: dict[str, Mount]

    @property
    def enforced(self) -> frozenset[LimitName]:
        """The limits that a group can enforce here."""
        return frozenset(CONTROLLERS[name] for name in self.mounts)

    def parents(self) -> set[Path]:
        """The folders in which groups are made."""
        return {mount.parent for mount in self.mounts.values()}

    def create(self, label: str, limits: Limits) -> BoxCgroup:
        """A new group with the limits, still without processes. Raises OSError."""
        group = BoxCgroup(tuple(sorted(parent / label for parent in self.parents())), self.mounts.get("memory"), label)
        try:
            for directory in group.directories:
                directory.mkdir(mode=0o755)
            for name, mount in self.mounts.items():
                for file, value, optional in _settings(name, mount.version, limits):
                    path = mount.parent / label / file
                    if not optional or path.exists():
                        path.write_text(value)
        except BaseException:
            group.remove()
            raise
        return group


def _settings(controller: str, version: int, limits: Limits) -> list[tuple[str, str, bool]]:
    """File, value, and whether the kernel may lack the file."""
    memory, processes = str(limits.memory_bytes), str(limits.processes + OWN_PROCESSES)
    quota = str(int(limits.cpus * CPU_PERIOD))
    table = {
        ("memory", 1): [("memory.limit_in_bytes", memory, False), ("memory.memsw.limit_in_bytes", memory, True)],
        ("memory", 2): [("memory.max", memory, False), ("memory.swap.max", "0", True)],
        ("pids", 1): [("pids.max", processes, False)],
        ("pids", 2): [("pids.max", processes, False)],
        ("cpu", 1): [("cpu.cfs_period_us", str(CPU_PERIOD), False), ("cpu.cfs_quota_us", quota, False)],
        ("cpu", 2): [("cpu.max", f"{quota} {CPU_PERIOD}", False)],
    }
    return table[controller, version]


@dataclass(frozen=True, slots=True)
class BoxCgroup:
    """The groups of one box."""

    directories: tuple[Path, ...]
    memory: Mount | None
    label: str

    def add(self, pid: int) -> None:
        """Moves a process, and with it all that it will start, into the groups."""
        for directory in self.directories:
            (directory / "cgroup.procs").write_text(str(pid))

    def oom_kills(self) -> int:
        """How many processes of the box the kernel has ended because the memory limit was reached."""
        if self.memory is None:
            return 0
        file = "memory.oom_control" if self.memory.version == 1 else "memory.events"
        return read_counter(self.memory.parent / self.label / file, "oom_kill")

    def kill(self) -> None:
        """SIGKILL for every process in the groups."""
        for directory in self.directories:
            kill_group(directory)

    def remove(self) -> None:
        """Ends what is left in the groups and removes them. Raises OSError if that fails."""
        deadline = time.monotonic() + REMOVE_PATIENCE
        for directory in self.directories:
            remove_group(directory, deadline)


def read_counter(file: Path, name: str) -> int:
    """A value of a file of `name value` lines, 0 if it is not there."""
    with contextlib.suppress(OSError):
        for line in file.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0


def kill_group(directory: Path) -> None:
    """SIGKILL for every process in one group."""
    with contextlib.suppress(OSError):
        (directory / "cgroup.kill").write_text("1")
        return
    with contextlib.suppress(OSError):
        for pid in (directory / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def remove_group(directory: Path, deadline: float) -> None:
    """Kills what is in a group and removes it."""
    while True:
        try:
            directory.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            kill_group(directory)
            time.sleep(0.002)


def find_cgroups(mountinfo: str, membership: str) -> Cgroups:
    """The controllers in which this process can make groups.

    In a delegated version 2 group this moves the group's processes into a child (`HOST_LEAF`), as the kernel demands.

    Args:
        mountinfo: Text of /proc/self/mountinfo.
        membership: Text of /proc/self/cgroup.
    """
    mounts = {}
    version_2 = [Path(point) for kind, point, _ in _mounts(mountinfo) if kind == "cgroup2"]
    for controller in CONTROLLERS:
        for kind, point, options in _mounts(mountinfo):
            # as root: at the top of the hierarchy that can be seen, where a later process finds leftovers
            if kind == "cgroup" and controller in options.split(",") and _writable(Path(point)):
                mounts[controller] = Mount(1, Path(point))
    missing = CONTROLLERS.keys() - mounts.keys()
    for root in version_2:
        own = next((line[3:] for line in membership.splitlines() if line.startswith("0::")), "/")
        parent = _delegated(root, root / own.lstrip("/"), missing)
        if parent is not None:
            mounts |= {name: Mount(2, parent) for name in missing & _words(parent / "cgroup.subtree_control")}
    return Cgroups(mounts)


def _mounts(mountinfo: str) -> Iterator[tuple[str, str, str]]:
    """File system type, mount point and super options of each mount."""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        yield kind, left.split()[4].replace("\\040", " "), options


def _writable(directory: Path) -> bool:
    return os.access(directory, os.W_OK) and os.access(directory / "cgroup.procs", os.W_OK)


def _words(file: Path) -> set[str]:
    with contextlib.suppress(OSError):
        return set(file.read_text().split())
    return set()


def _delegated(root: Path, own: Path, wanted: set[str]) -> Path | None:
    """The version 2 group with the most of the wanted controllers in which this process may make children."""
    best, found = None, set[str]()
    for directory in dict.fromkeys((root, own.parent if own != root else root, own)):
        if not _writable(directory):
            continue
        available = _words(directory / "cgroup.controllers") & wanted
        if not available <= _words(directory / "cgroup.subtree_control"):
            _share_out(directory, available, is_own=directory == own)
        usable = available & _words(directory / "cgroup.subtree_control")
        if len(usable) > len(found):
            best, found = directory, usable
    return best


def _share_out(directory: Path, controllers: set[str], *, is_own: bool) -> None:
    """Enables controllers for the children of a group, if that is allowed."""
    with contextlib.suppress(OSError):
        if is_own and directory.name != HOST_LEAF:
            leaf = directory / HOST_LEAF
            leaf.mkdir(exist_ok=True)
            for pid in (directory / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    (leaf / "cgroup.procs").write_text(pid)
        (directory / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in sorted(controllers)))
