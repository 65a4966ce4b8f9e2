"""Labels for what a box leaves in the system, so that what a killed owner left behind can be told and removed."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

PREFIX = "g4agent-"


def owner_label(serial: int) -> str:
    """`g4agent-<boot>-<process namespace>-<pid>-<start time>-<serial>`, unlike that of any other box.

    A pid means something in its own process namespace and boot only, and is used again: the start time (clock ticks
    since boot) tells owners apart.
    """
    pid = os.getpid()
    return f"{PREFIX}{_boot()}-{_pid_namespace()}-{pid}-{_start_time(pid)}-{serial}"


def owner_runs(label: str) -> bool | None:
    """Whether the process that made a label runs; None where that cannot be told from here."""
    boot, namespace, pid, start, _ = label.removeprefix(PREFIX).split("-")
    if boot != _boot():
        return False
    return _start_time(int(pid)) == start if namespace == _pid_namespace() else None


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text()[:8]


def _pid_namespace() -> str:
    return str(Path("/proc/self/ns/pid").stat().st_ino)


def _start_time(pid: int) -> str | None:
    """Field 22 of /proc/PID/stat; None if the process is gone or a zombie."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    return None
