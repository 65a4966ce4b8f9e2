"""`--workspace PATH`: a run works on a copy of a folder, and its changes come out as `--changes` says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from g4agent.errors import ConfigError
from g4agent.events import ChangesSettled, WorkspaceChanged
from g4agent.project import Changes, ChangesConflictError, Project
from g4agent.project.changes import require_new_branch

if TYPE_CHECKING:
    from g4agent.agent import Agent
    from g4agent.cli.drive import Driver
    from g4agent.session import Session

Action = Literal["ask", "apply", "discard", "patch", "branch"]
SUBJECT_CHARS = 72


@dataclass(frozen=True, slots=True)
class Copied:
    """A project of which a run gets a copy, and what becomes of the changes."""

    project: Project
    action: Action
    target: str = ""
    """The patch's file, or the branch."""

    @classmethod
    def prepare(cls, folder: Path, changes: str | None, *, watched: bool) -> Copied:
        """Reads the project, and refuses before the run what could not be done after it.

        Args:
            folder: To copy.
            changes: What was asked for; None asks a person.
            watched: Whether there is one.

        Raises:
            ConfigError: The folder, the choice, the branch or the patch's folder cannot be used.
        """
        action, target = parse_changes(changes or "ask")
        if action == "ask" and not watched:
            raise ConfigError(
                "nobody can be asked whether to take the changes over",
                hint="Say --changes apply, patch=FILE, branch=NAME or discard.",
            )
        if action == "patch" and not Path(target).absolute().parent.is_dir():
            raise ConfigError(f"there is no folder for the patch {target}", hint="Make it first.")
        project = Project.read(folder)
        if action == "branch":
            require_new_branch(project, target)
        return cls(project, action, target)

    def agent(self, agent: Agent) -> Agent:
        """The agent, at work on the copy."""
        archive = self.project.archive()
        room = agent.limits.workspace_bytes
        if len(archive) > room:
            raise ConfigError(
                f"{self.project.folder} has {len(archive)} bytes to copy, and a workspace holds {room}",
                hint="Name a smaller folder, leave files out by .gitignore, or give the agent more: "
                "limits=Limits(workspace_bytes=…).",
            )
        return agent.replace(workspace=lambda seed: archive)

    async def settle(self, driver: Driver, session: Session, task: str, *, ok: bool) -> None:
        """Shows what changed and takes it over, if that was asked for, the run ended well, or a person says yes.

        What is not taken over, and was not to be discarded, is kept as a patch.

        Raises:
            ChangesConflictError: The files are not as the run found them. None of them is changed.
        """
        changes = Changes.of(self.project, await (await session.open_box()).snapshot())
        diff = changes.diff()
        shown = diff.encode(errors="surrogateescape").decode(errors="replace")
        driver.show(WorkspaceChanged(tuple(changes.files), shown, changes.left_out))
        if not changes.files:
            if self.action == "patch":
                _write_patch(Path(self.target), diff)
            return
        match self.action:
            case "patch":
                _write_patch(Path(self.target), diff)
                driver.show(ChangesSettled("patch", self.target))
            case "branch":
                commit = changes.commit(self.target, _message(task, session.id))
                driver.show(ChangesSettled("branch", f"{self.target} ({commit[:10]})"))
            case "discard":
                driver.show(ChangesSettled("discard", ""))
            case "apply" if ok:
                await self._apply(driver, session, changes, diff)
            case "ask" if await self._asked(len(changes.files)):
                await self._apply(driver, session, changes, diff)
            case _:
                await self._keep(driver, session, diff)

    async def _asked(self, count: int) -> bool:
        from g4agent.cli.drive import ask

        what = "this change" if count == 1 else f"these changes of {count} files"
        answer = await ask(f"Apply {what} to {self.project.folder}? [y/N] ")
        return (answer or "").strip().lower() in ("y", "yes")

    async def _apply(self, driver: Driver, session: Session, changes: Changes, diff: str) -> None:
        try:
            changes.apply()
        except ChangesConflictError:
            await self._keep(driver, session, diff)
            raise
        driver.show(ChangesSettled("apply", str(self.project.folder)))

    async def _keep(self, driver: Driver, session: Session, diff: str) -> None:
        """Not applied; kept with the session, where there is a store."""
        store = await driver.agent.open_store()
        if store is None:
            driver.show(ChangesSettled("discard", ""))
            return
        file = store.folder / "sessions" / session.id / "changes.patch"
        file.parent.mkdir(parents=True, exist_ok=True)
        _write_patch(file, diff)
        driver.show(ChangesSettled("patch", str(file)))


def parse_changes(text: str) -> tuple[Action, str]:
    """`ask`, `apply`, `discard`, `patch=FILE` or `branch=NAME`. Raises ConfigError."""
    name, equals, target = text.partition("=")
    for action in get_args(Action):
        if name == action and bool(target) == bool(equals) == (action in ("patch", "branch")):
            return action, target
    raise ConfigError(
        f"{text!r} says not what to do with changes", hint="ask, apply, discard, patch=FILE, branch=NAME."
    )


def _message(task: str, session: str) -> str:
    lines = task.strip().splitlines()
    subject = lines[0] if lines else "A run's changes"
    if len(subject) > SUBJECT_CHARS:
        subject = f"{subject[: SUBJECT_CHARS - 1]}…"
    return f"{subject}\n\nMade by g4agent in session {session}.\n"


def _write_patch(file: Path, diff: str) -> None:
    part = file.with_name(f"{file.name}.part")
    part.write_bytes(diff.encode(errors="surrogateescape"))
    part.replace(file)
