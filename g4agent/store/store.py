"""The store: every session of a user in one SQLite file or PostgreSQL database, committed step by step.

A step is one transaction, so that a killed process leaves the last finished step and nothing of the next. No commit
reads or writes anything that an earlier one wrote, but for the session's row of running totals: a step costs the same
whether it is the first or the thousandth.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import secrets
import threading
import time
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import Connection, delete, select

from g4agent.errors import SessionNotFoundError, StoreError
from g4agent.ports.runtime import TranscriptDelta
from g4agent.store import rows, statements
from g4agent.store.archive import new_archive, opened_archive, read_session, write_session
from g4agent.store.database import SQLITE, Database, default_path, locate
from g4agent.store.deflate import Deflater
from g4agent.store.forks import copy_history
from g4agent.store.ids import session_id as new_session_id
from g4agent.store.leases import Leases
from g4agent.store.people import Orders, Questions
from g4agent.store.records import (
    CallRecord,
    Generation,
    NewSession,
    SessionSummary,
    StepImage,
    StepRecord,
    StoredCall,
    StoredSession,
    StoredStep,
    still_open,
)
from g4agent.store.schema import ensure_schema
from g4agent.store.tables import CALLS, MEMORY, OPTIONS, PROGRESS, SESSIONS, STEPS, TRANSCRIPT
from g4agent.verdict import Verdict

_NEAR = 5  # ids named in an error
_MEMORY = (MEMORY.c.tokens.label("held"), MEMORY.c.bytes, MEMORY.c.plain_bytes)


class Store:
    """An open store. Methods block, and may be called from any thread: they take turns on one connection.

    Other processes may use the same store at the same time; one that has to wait for longer than `busy_seconds` raises
    StoreError, as does every other failure of the database. What was committed stays.
    """

    def __init__(self, database: Database) -> None:
        self.location = database.location
        """The file's path or the URL, as errors name it."""
        self.owner = secrets.token_hex(8)
        """Names this object as the holder of leases."""
        self.leases = Leases(database, self.owner)
        self.questions = Questions(database)
        self.orders = Orders(database)
        self._database = database
        self._deflater = Deflater()
        self._id_lock = threading.Lock()
        self._last_id_time = 0

    @classmethod
    def open(cls, place: str | os.PathLike[str] | None = None, *, busy_seconds: float = 10.0) -> Store:
        """Opens a store, and creates or upgrades it where needed.

        Args:
            place: Path of a file, a URL (`sqlite://` is a store in memory, `postgresql://user@host/database` one for
                many hosts), or None for the user's own store.
            busy_seconds: How long to wait for another process's commit.
        """
        database = Database(locate(place), busy_seconds)
        try:
            ensure_schema(database)
        except BaseException:
            database.close()
            raise
        return cls(database)

    @property
    def folder(self) -> Path:
        """Where files that belong to sessions lie on this host: beside the database's file, else the default folder."""
        file = Path(self.location)
        beside = self._database.dialect == SQLITE and file.is_file()
        return file.resolve().parent if beside else default_path().parent

    @property
    def pages(self) -> Path | None:
        """Where keys and values of sessions lie on this host; None for a store in memory."""
        return None if self.location == ":memory:" else self.folder / "pages"

    def session_folder(self, session_id: str) -> Path:
        """Where a session's services, and changes that were not taken over, lie on this host, if there are any."""
        return self.folder / "sessions" / session_id

    def close(self) -> None:
        """Closes the database. Harmless when closed already."""
        self._database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # Writing --------------------------------------------------------------------------------------------------------

    def create_session(self, session: NewSession, *, lease: bool = False) -> str:
        """Commits a session without steps, and its lease where that is wanted; returns its id."""
        now = datetime.now(UTC)
        key = self._new_id()
        with self._database.writing() as db:
            db.execute(statements.ADD_SESSION, rows.session(key, now, session))
            db.execute(statements.ADD_PROGRESS, rows.first_progress(key, now))
            if session.model_options:
                db.execute(statements.ADD_OPTIONS, rows.options(key, session))
            if lease:
                self.leases.acquire_within(db, key)
        return key

    def record_intents(
        self, session_id: str, step: int, calls: Sequence[CallRecord], generation: Generation | None = None
    ) -> None:
        """Journals calls before they run, and the generation that they stand in, in a commit of its own.

        `step` is the index of the step under way, that is of the next one to be committed. An intent without a result
        stays, whatever becomes of the step; only another try of the very same call takes its place.
        """
        now = datetime.now(UTC)
        with self._database.writing() as db:
            self._check_position(db, session_id, step, start=0)
            if generation is not None:
                db.execute(statements.DROP_GENERATIONS, {"p_session": session_id, "p_step": step})
                db.execute(statements.ADD_GENERATION, rows.generation(session_id, step, generation))
            intents = [rows.call(session_id, step, call) | {"started": now} for call in calls]
            self._write_calls(db, session_id, step, intents)

    def commit_step(self, session_id: str, step: StepRecord) -> None:
        """Commits a step: transcript, step, calls with results, totals, workspace and verdict, all or nothing.

        Raises StoreError if the step is not the session's next one, or its transcript would leave a gap.
        """
        blob, replaced = self._changed_workspace(session_id, step.workspace)
        images = [rows.blob(each.image.data) for each in step.images]
        now = datetime.now(UTC)
        with self._database.writing() as db:
            if blob is not None:
                db.execute(statements.ADD_BLOB[self._database.dialect], blob)
            values = rows.advance(session_id, step, now, blob["sha256"] if blob else None, self.owner)
            if not db.execute(statements.ADVANCE, values).rowcount:
                self._check_position(db, session_id, step.index, step.delta.start)
            db.execute(statements.ADD_STEP, {**rows.step(session_id, step, now), "p_session": session_id})
            db.execute(statements.ADD_TRANSCRIPT, rows.transcript(session_id, step.index, step.delta))
            for each, data in zip(step.images, images, strict=True):
                db.execute(statements.ADD_BLOB[self._database.dialect], data)
                db.execute(statements.ADD_IMAGE, rows.image(session_id, step.index, each))
            if step.kind == "user":
                db.execute(statements.DROP_GENERATIONS, {"p_session": session_id, "p_step": step.index})
            elif step.generation is not None:
                db.execute(statements.ADD_GENERATION, rows.generation(session_id, step.index, step.generation))
            if step.calls:
                results = [rows.call(session_id, step.index, call) for call in step.calls]
                self._write_calls(db, session_id, step.index, results)
            if step.memory is not None:
                db.execute(statements.SET_MEMORY[self._database.dialect], rows.memory(session_id, step.memory))
            if replaced is not None:
                db.execute(statements.DROP_BLOB, {"p_sha256": replaced})

    def end_turn(self, session_id: str, verdict: Verdict) -> None:
        """Records how the last user turn ended, where its last step did not say so."""
        values = {f"p_{name}": value for name, value in rows.verdict(verdict).items()}
        values |= {"p_session": session_id, "p_now": datetime.now(UTC), "p_owner": self.owner}
        with self._database.writing() as db:
            if not db.execute(statements.SET_VERDICT, values).rowcount:
                self.leases.fence(db, session_id)
                raise self._not_found(db, session_id)

    def delete_session(self, session_id: str) -> None:
        """Deletes a session and all that belongs to it. The file keeps its size; the space is used again."""
        with self._database.writing() as db:
            names = db.execute(statements.BLOB_NAMES, {"p_session": session_id}).scalars().all()
            if not db.execute(delete(SESSIONS).where(SESSIONS.c.id == session_id)).rowcount:
                raise self._not_found(db, session_id)
            for name in names:
                db.execute(statements.DROP_BLOB, {"p_sha256": name})

    def fork(self, session_id: str, step: int | None = None) -> str:
        """Commits a new session with the history of another one up to and including a step; returns its id.

        Args:
            session_id: The session that is forked. It stays as it is, and may be running.
            step: The last step to take over; None: the last one that is committed, with what is journaled of the next.

        Raises:
            SessionNotFoundError: There is no such session.
            StoreError: It has no such step, or the workspace as of the step was not kept.
        """
        key = self._new_id()
        with self._database.writing() as db:
            self._require(db, session_id)
            copy_history(db, session_id, step, key, datetime.now(UTC))
        return key

    def export_session(self, session_id: str, file: str | os.PathLike[str]) -> None:
        """Writes all that is stored of a session into a new file, which `import_session` takes in.

        Raises SessionNotFoundError, or StoreError if the file is there already or cannot be written.
        """
        with new_archive(Path(file)) as archive, self._database.reading() as db:
            if db.execute(select(SESSIONS.c.id).where(SESSIONS.c.id == session_id)).one_or_none() is None:
                raise self._not_found(db, session_id)
            write_session(db, session_id, archive)

    def import_session(self, file: str | os.PathLike[str]) -> str:
        """Takes in a session that was exported from this or another store; returns its id, a new one if it is taken.

        Raises StoreError, with nothing changed, for a file that is damaged, cut short or of a newer g4agent.
        """
        with opened_archive(Path(file)) as archive, self._database.writing() as db:
            return read_session(db, archive, statements.ADD_BLOB[self._database.dialect], self._new_id)

    # Reading --------------------------------------------------------------------------------------------------------

    def session(self, id_or_prefix: str) -> StoredSession:
        """A session by its id or the beginning of it. Raises SessionNotFoundError if none or several begin so."""
        key = id_or_prefix.strip().lower()
        query = (
            select(SESSIONS, *(column for column in PROGRESS.c if column.name != "session_id"))
            .add_columns(OPTIONS.c.model_options, *_MEMORY)
            .select_from(SESSIONS)
            .join(PROGRESS)
            .outerjoin(OPTIONS)
            .outerjoin(MEMORY)
            .where(SESSIONS.c.id >= key, SESSIONS.c.id < key + "~")
            .order_by(SESSIONS.c.id.desc())
            .limit(_NEAR + 1)
        )
        with self._database.reading() as db:
            found = db.execute(query).mappings().all()
            if not key or not found:
                raise self._not_found(db, id_or_prefix)
        if len(found) > 1:
            names = ", ".join(row["id"] for row in found[:_NEAR])
            raise SessionNotFoundError(
                f"Several sessions begin with {id_or_prefix!r}.", hint=f"Give more of the id: {names}"
            )
        return rows.stored_session(found[0])

    def list_sessions(self, limit: int | None = None) -> list[SessionSummary]:
        """Sessions, the last used first."""
        s, p = SESSIONS.c, PROGRESS.c
        query = (
            select(s.id, s.created, s.agent, s.model, p.updated, p.title, p.steps, p.tokens, p.outcome, p.reason)
            .add_columns(*_MEMORY)
            .join(PROGRESS)
            .outerjoin(MEMORY)
            .order_by(p.updated.desc(), s.id.desc())
            .limit(limit)
        )
        with self._database.reading() as db:
            return [rows.summary(row) for row in db.execute(query).mappings()]

    def steps(self, session_id: str) -> list[StoredStep]:
        """All committed steps, in order."""
        query = select(STEPS).where(STEPS.c.session_id == session_id).order_by(STEPS.c.step)
        with self._database.reading() as db:
            return [rows.stored_step(row) for row in db.execute(query).mappings()]

    def calls(self, session_id: str) -> list[StoredCall]:
        """All calls, done or not, in order."""
        query = select(CALLS).where(CALLS.c.session_id == session_id).order_by(CALLS.c.step, CALLS.c.position)
        with self._database.reading() as db:
            return [rows.stored_call(row) for row in db.execute(query).mappings()]

    def open_calls(self, session_id: str) -> list[CallRecord]:
        """Calls whose outcome is not known, unless the very same call was made again since and came to an end."""
        found: list[CallRecord] = []
        for _, step in groupby(self.calls(session_id), key=lambda call: call.step):
            found = still_open(found, list(step))
        return found

    def transcript(self, session_id: str) -> list[int]:
        """All token ids."""
        query = (
            select(TRANSCRIPT.c.start, TRANSCRIPT.c.ids)
            .where(TRANSCRIPT.c.session_id == session_id)
            .order_by(TRANSCRIPT.c.step)
        )
        with self._database.reading() as db:
            return rows.joined_transcript((start, ids) for start, ids in db.execute(query))

    def delta(self, session_id: str, step: int) -> TranscriptDelta:
        """What a committed step changed in the transcript."""
        query = select(TRANSCRIPT.c.start, TRANSCRIPT.c.ids)
        with self._database.reading() as db:
            start, ids = db.execute(query.where(TRANSCRIPT.c.session_id == session_id, TRANSCRIPT.c.step == step)).one()
        return TranscriptDelta(start, rows.unpacked(ids))

    def generation(self, session_id: str, step: int) -> Generation | None:
        """What the model sampled in a step, committed or journaled; None for a user turn or a chat-only model."""
        with self._database.reading() as db:
            row = db.execute(statements.GENERATION, {"p_session": session_id, "p_step": step}).mappings().one_or_none()
        return None if row is None else rows.stored_generation(row)

    def images(self, session_id: str) -> dict[int, list[StepImage]]:
        """By step, the images that the model was given."""
        found: dict[int, list[StepImage]] = {}
        with self._database.reading() as db:
            for row in db.execute(statements.IMAGES_OF, {"p_session": session_id}).mappings():
                found.setdefault(row["step"], []).append(rows.stored_image(row))
        return found

    def workspace(self, session_id: str) -> bytes | None:
        """The latest snapshot of the workspace; None if there is none."""
        with self._database.reading() as db:
            data = db.execute(statements.WORKSPACE, {"p_session": session_id}).scalar()
        return None if data is None else zlib.decompress(data)

    # Inside ---------------------------------------------------------------------------------------------------------

    def _new_id(self) -> str:
        with self._id_lock:
            self._last_id_time = max(self._last_id_time + 1, time.time_ns() // 1_000_000)
            return new_session_id(self._last_id_time)

    def _require(self, db: Connection, session_id: str) -> None:
        """Raises SessionNotFoundError if there is no such session; keeps it in place until the transaction ends."""
        if db.execute(statements.POSITION, {"p_session": session_id}).one_or_none() is None:
            raise self._not_found(db, session_id)

    def _changed_workspace(self, session_id: str, workspace: bytes | None) -> tuple[dict[str, Any] | None, str | None]:
        """The blob to write, compressed before the commit begins, and the name of the one that it replaces.

        Both are None where the workspace is as it was.
        """
        if workspace is None:
            return None, None
        with self._database.reading() as db:
            present: str | None = db.execute(statements.WORKSPACE_NAME, {"p_session": session_id}).scalar()
        name = hashlib.sha256(workspace).hexdigest()
        if name == present:
            return None, None
        return {"sha256": name, "size": len(workspace), "data": self._deflater.compress(workspace)}, present

    @staticmethod
    def _write_calls(db: Connection, session_id: str, step: int, calls: Sequence[dict[str, Any]]) -> None:
        """Writes calls over their own open intents, or as new rows."""
        open_intents = db.execute(statements.OPEN_INTENTS, {"p_session": session_id, "p_step": step})
        known = {rows.identity(call_id, name, arguments): seq for seq, call_id, name, arguments in open_intents}
        for call in calls:
            seq = known.get(rows.identity(call["call_id"], call["name"], call["arguments"]))
            if seq is None:
                db.execute(statements.ADD_CALL, call)
            else:
                db.execute(statements.UPDATE_CALL, {**call, "p_seq": seq})

    def _check_position(self, db: Connection, session_id: str, step: int, start: int) -> None:
        """Raises the error that says why a step, or a change of the transcript from `start` on, does not fit here."""
        position = db.execute(statements.POSITION, {"p_session": session_id}).one_or_none()
        if position is None:
            raise self._not_found(db, session_id)
        self.leases.fence(db, session_id)
        if position.steps != step:
            raise StoreError(
                f"Step {step} of session {session_id} cannot be committed: its next step is {position.steps}.",
                hint="Another process has gone on with the session. Resume it again to go on from there.",
            )
        if start > position.tokens:
            raise StoreError(
                f"The transcript of session {session_id} has {position.tokens} tokens; a change at {start} is a gap.",
                hint="A change was lost before. Resume the session to go on from its last committed step.",
            )

    def _not_found(self, db: Connection, session_id: str) -> SessionNotFoundError:
        """The error, with the ids that were most likely meant."""
        recent = db.execute(select(SESSIONS.c.id).order_by(SESSIONS.c.id.desc()).limit(1000)).scalars().all()
        near = difflib.get_close_matches(session_id.lower(), recent, _NEAR, cutoff=0.6) or recent[:_NEAR]
        hint = f"Sessions near it: {', '.join(near)}" if near else "The store has no sessions yet."
        return SessionNotFoundError(f"There is no session {session_id!r} in {self.location}.", hint=hint)
