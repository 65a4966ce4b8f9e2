"""Labels for what a box leaves in the system, and the removal of what a killed owner left behind.

The processes of a killed owner's box die with it (bwrap's `--die-with-parent`); its control groups stay.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from pathlib import Path

from g4agent_bubblewrap.cgroup import PREFIX, REMOVE_PATIENCE, Cgroups, remove_group

_serial = itertools.count()


def new_label() -> str:
    """`g4agent-<process namespace>-<pid>-<start time>-<serial>`.

    A pid means something in its own process namespace only, and is used again: the start time (clock ticks since boot)
    tells owners apart. Groups do not outlive a boot.
    """
    return f"{PREFIX}{_pid_namespace()}-{os.getpid()}-{_start_time(os.getpid())}-{next(_serial)}"


def sweep(cgroups: Cgroups) -> list[Path]:
    """Removes the groups of owners that no longer run, and gives their paths."""
    removed = []
    for directory in sorted(path for parent in cgroups.parents() for path in parent.glob(f"{PREFIX}*-*-*-*")):
        namespace, pid, start, _ = directory.name.removeprefix(PREFIX).split("-")
        if namespace == _pid_namespace() and _start_time(int(pid)) != start:
            with contextlib.suppress(OSError):
                remove_group(directory, time.monotonic() + REMOVE_PATIENCE)
                removed.append(directory)
    return removed


def _pid_namespace() -> str:
    return str(Path("/proc/self/ns/pid").stat().st_ino)


def _start_time(pid: int) -> str | None:
    """Field 22 of /proc/PID/stat; None if the process is gone or a zombie."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    return None
