"""Replacing many files of a folder at once: all of them, or none, even if the process is killed in between.

New files are written to a folder beside their places, with a plan of what goes where. Then each old file is moved
there and each new one to its place. Removing the plan is what makes it final: as long as it is there, the very same
moves can be taken back, by this process or by the next that looks at the folder (`recover`).
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from g4agent.errors import G4AgentError
from g4agent.project.entries import Entries, Entry, read_entry, write_entry

STAGE = ".g4agent-apply-"
PLAN = "plan.json"


class ChangesConflictError(G4AgentError):
    """The folder is not as it was, or cannot be written. Nothing of it was changed."""


def replace_files(folder: Path, before: Entries, after: Mapping[str, Entry | None]) -> None:
    """Makes each path what `after` says; None removes it.

    Args:
        folder: Whose files they are.
        before: What the paths must be now; those that are missing must not be there.
        after: What they become.

    Raises:
        ChangesConflictError: They are not as `before` says, or cannot be written.
    """
    _require_unchanged(folder, before, after)
    try:
        stage = Path(tempfile.mkdtemp(prefix=STAGE, dir=folder))
    except OSError as error:
        raise _not_changed(folder, error) from error
    try:
        for number, entry in enumerate(after.values()):
            if entry is not None:
                write_entry(stage / f"{number}.new", entry)
        _write_plan(stage, [[path, entry is not None] for path, entry in after.items()])
        for number, path in enumerate(after):
            if path in before:
                (folder / path).rename(stage / f"{number}.old")
        for path in after:
            _remove_empty((folder / path).parent, folder)  # a folder may become a file
        for number, (path, entry) in enumerate(after.items()):
            if entry is not None:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (stage / f"{number}.new").rename(folder / path)
        (stage / PLAN).unlink()
    except BaseException as error:
        _take_back(folder, stage)
        if isinstance(error, OSError):
            raise _not_changed(folder, error) from error
        raise
    shutil.rmtree(stage)


def recover(folder: Path) -> None:
    """Takes back what a killed process began."""
    for stage in folder.glob(f"{STAGE}*"):
        _take_back(folder, stage)


def _take_back(folder: Path, stage: Path) -> None:
    if (stage / PLAN).exists():
        plan = json.loads((stage / PLAN).read_text())
        for number, (path, replaced) in enumerate(plan):
            if replaced and not os.path.lexists(stage / f"{number}.new"):
                (folder / path).rename(stage / f"{number}.new")
                _remove_empty((folder / path).parent, folder)
        for number, (path, _) in enumerate(plan):
            if os.path.lexists(stage / f"{number}.old"):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (stage / f"{number}.old").rename(folder / path)
        (stage / PLAN).unlink()
    shutil.rmtree(stage)


def _write_plan(stage: Path, plan: list[list[str | bool]]) -> None:
    draft = stage / f"{PLAN}.part"
    with draft.open("w") as stream:
        json.dump(plan, stream)
        stream.flush()
        os.fsync(stream.fileno())
    draft.rename(stage / PLAN)


def _require_unchanged(folder: Path, before: Entries, after: Mapping[str, Entry | None]) -> None:
    changed = [path for path in after if read_entry(folder / path) != before.get(path)]
    moved = [path for path in after if (folder / path).parent.resolve() != folder.joinpath(path).parent]
    if changed or moved:
        raise ChangesConflictError(
            f"not as the run found them: {', '.join(sorted({*changed, *moved}))}",
            hint="Somebody changed these files while the run went on. Nothing was applied.",
        )


def _remove_empty(place: Path, folder: Path) -> None:
    """Removes a folder, and those above it, that hold nothing any more."""
    with suppress(OSError):
        while place != folder:
            place.rmdir()
            place = place.parent


def _not_changed(folder: Path, error: OSError) -> ChangesConflictError:
    return ChangesConflictError(f"{folder} was not changed: {error}", hint="Mend that, and apply the patch again.")
