"""`--workspace PATH`: a run works on a copy of a folder, and its changes come out as `--changes` says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from g4agent.errors import ConfigError
from g4agent.events import ChangesSettled, WorkspaceChanged
from g4agent.project import Changes, Project
from g4agent.project.changes import require_new_branch

if TYPE_CHECKING:
    from g4agent.agent import Agent
    from g4agent.cli.drive import Driver
    from g4agent.session import Session
    from g4agent.store import Store

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
        return cls._checked(Project.read(folder), changes, watched)

    @classmethod
    def stored(cls, store: Store, session: str, changes: str | None, *, watched: bool) -> Copied | None:
        """The project of a session that began on a copy of one; None for any other session. Raises as `prepare`."""
        project = Project.load(store.session_folder(session))
        return None if project is None else cls._checked(project, changes, watched)

    @classmethod
    def _checked(cls, project: Project, changes: str | None, watched: bool) -> Copied:
        action, target = parse_changes(changes or "ask")
        if action == "ask" and not watched:
            raise ConfigError(
                "nobody can be asked whether to take the changes over",
                hint="Say --changes apply, patch=FILE, branch=NAME or discard.",
            )
        if action == "patch" and not Path(target).absolute().parent.is_dir():
            raise ConfigError(f"there is no folder for the patch {target}", hint="Make it first.")
        if action == "branch":
            require_new_branch(project, target)
        return cls(project, action, target)

    async def remember(self, driver: Driver, session: Session) -> None:
        """Keeps with the session what was copied, so that a resumed one can take its changes over as well."""
        store = await driver.agent.open_store()
        if store is not None:
            self.project.save(store.session_folder(session.id))

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
            if self.action == "patch" and ok:
                _write_patch(Path(self.target), diff)
            return
        if self.action == "discard":
            driver.show(ChangesSettled("discard", ""))
        elif self.action == "patch" and ok:
            _write_patch(Path(self.target), diff)
            driver.show(ChangesSettled("patch", self.target))
        else:
            await self._take_over(driver, session, task, changes, diff, ok)

    async def _take_over(
        self, driver: Driver, session: Session, task: str, changes: Changes, diff: str, ok: bool
    ) -> None:
        """Keeps a patch with the session, where there is a store, until the changes are where they were to go."""
        store = await driver.agent.open_store()
        folder = None if store is None else store.session_folder(session.id)
        kept = None if folder is None else folder / "changes.patch"
        if kept is not None:
            _write_patch(kept, diff)
        settled = ChangesSettled("discard", "") if kept is None else ChangesSettled("patch", str(kept))
        try:
            if self.action == "branch" and ok:
                commit = changes.commit(self.target, _message(task, session.id))
                settled = ChangesSettled("branch", f"{self.target} ({commit[:10]})")
            elif (self.action == "apply" and ok) or (self.action == "ask" and await self._asked(len(changes.files))):
                changes.apply()
                settled = ChangesSettled("apply", str(self.project.folder))
                if folder is not None:
                    changes.applied().save(folder)
        finally:
            driver.show(settled)
        if kept is not None and settled.action != "patch":
            kept.unlink()

    async def _asked(self, count: int) -> bool:
        from g4agent.cli.drive import ask

        what = "this change" if count == 1 else f"these changes of {count} files"
        answer = await ask(f"Apply {what} to {self.project.folder}? [y/N] ")
        return (answer or "").strip().lower() in ("y", "yes")


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
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    part.write_bytes(diff.encode(errors="surrogateescape"))
    part.replace(file)
