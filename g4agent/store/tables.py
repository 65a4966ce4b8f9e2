"""The tables, as SQLModel classes with a metadata of their own.

What changes with every step is kept apart from what does not: a `sessions` row, with its long system text, is written
once, and its row of `options` with it; `progress` is the small row that each commit updates. All else is only ever
inserted, but for the call rows, which turn from an intent into a result.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Float, ForeignKey, Index, MetaData, String
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


class AnyText(TypeDecorator[str]):
    """Text in which a NUL may stand: what models and tools say can hold one. PostgreSQL takes none, so there NUL is
    written as `␀0`, and the sign itself twice."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None or dialect.name != "postgresql":
            return value
        return value.replace("␀", "␀␀").replace("\0", "␀0")

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None or dialect.name != "postgresql":
            return value
        return re.sub("␀([␀0])", lambda found: "␀" if found[1] == "␀" else "\0", value)


class Base(SQLModel, registry=registry(metadata=MetaData(naming_convention=NAMING))):
    """Keeps these tables out of the default metadata, where an application's own SQLModel tables live."""


def _owner(*, primary_key: bool = False, index: bool = False) -> Any:
    """Column that names the session a row belongs to; the row goes when the session goes."""
    reference = ForeignKey("sessions.id", ondelete="CASCADE")
    return Field(primary_key=primary_key, index=index, sa_column_args=[reference])


class SessionRow(Base, table=True):
    """What a session was begun with."""

    __tablename__ = "sessions"

    id: str = Field(primary_key=True)
    created: datetime = Field(sa_type=UtcDateTime)
    agent: str
    model: str
    fingerprint: str
    variant: str
    system: str = Field(sa_type=AnyText)
    thinking: bool
    sampling: dict[str, Any] = Field(sa_type=JSON)
    tools_hash: str


class OptionsRow(Base, table=True):
    """The model's options that a session was begun with, of those that decide what is computed and kept. Only sessions
    that were given any have a row."""

    __tablename__ = "options"

    session_id: str = _owner(primary_key=True)
    model_options: dict[str, Any] = Field(sa_type=JSON)


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
    title: str = Field(sa_type=AnyText)
    steps: int
    tokens: int
    prompt_tokens: int
    generated_tokens: int
    thought_tokens: int
    seconds: float
    outcome: str | None
    reason: str = Field(sa_type=AnyText)
    workspace: str | None = Field(foreign_key="blobs.sha256", index=True)


class StepRow(Base, table=True):
    """One committed step."""

    __tablename__ = "steps"

    session_id: str = _owner(primary_key=True)
    step: int = Field(primary_key=True)
    created: datetime = Field(sa_type=UtcDateTime)
    kind: str
    text: str = Field(sa_type=AnyText)
    thoughts: str = Field(sa_type=AnyText)
    prompt_tokens: int
    generated_tokens: int
    thought_tokens: int
    seconds: float
    outcome: str | None
    reason: str = Field(sa_type=AnyText)
    workspace: str | None = Field(index=True)
    """Name of the workspace's snapshot after the step, which may have been dropped since: see `KEPT_BYTES`. Empty where
    it is not known: in steps older than this column."""


class MemoryRow(Base, table=True):
    """What a session's keys and values took when it was last committed, on the host that drove it. The pages themselves
    are files, which are found by the transcript; no row says where."""

    __tablename__ = "memory"

    session_id: str = _owner(primary_key=True)
    tokens: int
    bytes: int = Field(sa_type=BigInteger)
    plain_bytes: int = Field(sa_type=BigInteger)


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
    name: str = Field(sa_type=AnyText)
    arguments: dict[str, Any] = Field(sa_type=JSON)
    effect: str | None
    ran_in: str | None
    state: str
    result: Any = Field(sa_type=JSON(none_as_null=True), nullable=True)
    error: dict[str, Any] | None = Field(sa_type=JSON(none_as_null=True))
    output: str = Field(sa_type=AnyText)
    repairs: list[str] | None = Field(sa_type=JSON(none_as_null=True))
    started: datetime | None = Field(sa_type=UtcDateTime)
    seconds: float
    made_in: str | None
    """The session that made the call, where it was copied from another one."""


class ImageRow(Base, table=True):
    """An image that a person or a tool gave the model in a step; the file's bytes are a blob.

    `call_id` names the call whose result it was in. Of a person's, `place` is how many characters of the step's text
    stand before it.
    """

    __tablename__ = "images"

    seq: int | None = Field(default=None, primary_key=True)
    session_id: str = _owner(index=True)
    step: int
    call_id: str | None
    place: int
    name: str = Field(sa_type=AnyText)
    tokens: int
    sha256: str = Field(foreign_key="blobs.sha256", index=True)


class TranscriptRow(Base, table=True):
    """A step's change of the transcript: `ids` (packed little-endian int32) replace everything from `start` on."""

    __tablename__ = "transcript"

    session_id: str = _owner(primary_key=True)
    step: int = Field(primary_key=True)
    start: int
    ids: bytes


class GenerationRow(Base, table=True):
    """What the model sampled in a step: `ids` as packed int32, those that were forced as `-1 - id`; their `logprobs` as
    packed float32, NaN where there is none. The row of a step that is not committed yet is journaled with its calls."""

    __tablename__ = "generations"

    session_id: str = _owner(primary_key=True)
    step: int = Field(primary_key=True)
    max_tokens: int
    thought_limit: int | None
    ids: bytes
    logprobs: bytes


class LeaseRow(Base, table=True):
    """Who drives a session. `expires` is Unix time by the database's clock."""

    __tablename__ = "leases"

    session_id: str = _owner(primary_key=True)
    owner: str
    host: str
    pid: int
    process_start: str
    expires: float = Field(sa_type=Float(53))


class QuestionRow(Base, table=True):
    """A call that a person was asked about. `approved` is null until they answer; `used` once the call has run."""

    __tablename__ = "questions"

    id: str = Field(primary_key=True)
    session_id: str = _owner(index=True)
    created: datetime = Field(sa_type=UtcDateTime)
    call_id: str
    name: str = Field(sa_type=AnyText)
    arguments: dict[str, Any] = Field(sa_type=JSON)
    reason: str = Field(sa_type=AnyText)
    approved: bool | None
    answered: datetime | None = Field(sa_type=UtcDateTime)
    comment: str = Field(sa_type=AnyText)
    used: bool


class OrderRow(Base, table=True):
    """What somebody told a running session to do: stop, pause, resume or say. Removed when it is obeyed."""

    __tablename__ = "orders"

    seq: int | None = Field(default=None, primary_key=True)
    session_id: str = _owner(index=True)
    created: datetime = Field(sa_type=UtcDateTime)
    kind: str
    text: str = Field(sa_type=AnyText)


METADATA = Base.metadata
SESSIONS = METADATA.tables["sessions"]
OPTIONS = METADATA.tables["options"]
BLOBS = METADATA.tables["blobs"]
PROGRESS = METADATA.tables["progress"]
STEPS = METADATA.tables["steps"]
CALLS = METADATA.tables["calls"]
MEMORY = METADATA.tables["memory"]
IMAGES = METADATA.tables["images"]
TRANSCRIPT = METADATA.tables["transcript"]
GENERATIONS = METADATA.tables["generations"]
LEASES = METADATA.tables["leases"]
QUESTIONS = METADATA.tables["questions"]
ORDERS = METADATA.tables["orders"]
