"""The tables, as SQLModel classes with a metadata of their own.

What changes with every step is kept apart from what does not: a `sessions` row, with its long system text, is written
once; `progress` is the small row that each commit updates. All else is only ever inserted, but for the call rows, which
turn from an intent into a result.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, ForeignKey, Index, MetaData
from sqlalchemy.orm import registry
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, SQLModel

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time, kept in UTC. SQLite itself knows no time zones."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


class Base(SQLModel, registry=registry(metadata=MetaData(naming_convention=NAMING))):
    """Keeps these tables out of the default metadata, where an application's own SQLModel tables live."""


def _owner(*, primary_key: bool = False) -> Any:
    """Column that names the session a row belongs to; the row goes when the session goes."""
    reference = ForeignKey("sessions.id", ondelete="CASCADE")
    return Field(primary_key=primary_key, sa_column_args=[reference])


class SessionRow(Base, table=True):
    """What a session was begun with."""

    __tablename__ = "sessions"

    id: str = Field(primary_key=True)
    created: datetime = Field(sa_type=UtcDateTime)
    agent: str
    model: str
    fingerprint: str
    variant: str
    system: str
    thinking: bool
    sampling: dict[str, Any] = Field(sa_type=JSON)
    tools_hash: str


class BlobRow(Base, table=True):
    """Bytes named by their SHA-256, compressed with zlib; `size` is that of the original.

    They live in the database and not beside it, so that a snapshot and its step are one commit.
    """

    __tablename__ = "blobs"

    sha256: str = Field(primary_key=True)
    size: int
    data: bytes


class ProgressRow(Base, table=True):
    """How far a session has come: running totals, so that neither a commit nor a list reads any history."""

    __tablename__ = "progress"

    session_id: str = _owner(primary_key=True)
    updated: datetime = Field(sa_type=UtcDateTime, index=True)
    title: str
    steps: int
    tokens: int
    prompt_tokens: int
    generated_tokens: int
    thought_tokens: int
    seconds: float
    outcome: str | None
    reason: str
    workspace: str | None = Field(foreign_key="blobs.sha256", index=True)


class StepRow(Base, table=True):
    """One committed step."""

    __tablename__ = "steps"

    session_id: str = _owner(primary_key=True)
    step: int = Field(primary_key=True)
    created: datetime = Field(sa_type=UtcDateTime)
    kind: str
    text: str
    prompt_tokens: int
    generated_tokens: int
    thought_tokens: int
    seconds: float
    outcome: str | None
    reason: str


class CallRow(Base, table=True):
    """One tool call: `state` is `intended`, then `done`.

    Call ids are unique within a session, but for one case: a step that was cut off by a crash is generated anew, and
    other calls may come to have the ids of those that were journaled then. Both are kept.
    """

    __tablename__ = "calls"
    __table_args__ = (Index(None, "session_id", "step", "position"),)

    seq: int | None = Field(default=None, primary_key=True)
    session_id: str = _owner()
    step: int
    position: int
    call_id: str
    name: str
    arguments: dict[str, Any] = Field(sa_type=JSON)
    effect: str | None
    ran_in: str | None
    state: str
    result: Any = Field(sa_type=JSON(none_as_null=True), nullable=True)
    error: dict[str, Any] | None = Field(sa_type=JSON(none_as_null=True))
    output: str
    started: datetime | None = Field(sa_type=UtcDateTime)
    seconds: float


class TranscriptRow(Base, table=True):
    """A step's change of the transcript: `ids` (packed little-endian int32) replace everything from `start` on."""

    __tablename__ = "transcript"

    session_id: str = _owner(primary_key=True)
    step: int = Field(primary_key=True)
    start: int
    ids: bytes


METADATA = Base.metadata
SESSIONS = METADATA.tables["sessions"]
BLOBS = METADATA.tables["blobs"]
PROGRESS = METADATA.tables["progress"]
STEPS = METADATA.tables["steps"]
CALLS = METADATA.tables["calls"]
TRANSCRIPT = METADATA.tables["transcript"]
