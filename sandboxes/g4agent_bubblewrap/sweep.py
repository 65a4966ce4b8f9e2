"""The removal of what a killed owner left behind.

The processes of a killed owner's box die with it (bwrap's `--die-with-parent`); its control groups stay.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from pathlib import Path

from g4agent_box.owner import PREFIX, owner_label, owner_runs
from g4agent_bubblewrap.cgroup import REMOVE_PATIENCE, Cgroups, remove_group

_serial = itertools.count()


def new_label() -> str:
    """The name of a box's control groups."""
    return owner_label(next(_serial))


def sweep(cgroups: Cgroups) -> list[Path]:
    """Removes the groups of owners that no longer run, and gives their paths."""
    removed = []
    for directory in sorted(path for parent in cgroups.parents() for path in parent.glob(f"{PREFIX}*-*-*-*-*")):
        if owner_runs(directory.name) is False:
            with contextlib.suppress(OSError):
                remove_group(directory, time.monotonic() + REMOVE_PATIENCE)
                removed.append(directory)
    return removed
