"""The statements that every step uses, built once: SQLAlchemy then finds their SQL in its cache.

Parameters that are not the value of one column are named `p_…`.
"""

from __future__ import annotations

from sqlalchemy import bindparam, case, delete, exists, func, insert, or_, select, union, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from g4agent.store.database import POSTGRESQL, SQLITE
from g4agent.store.tables import (
    BLOBS,
    CALLS,
    GENERATIONS,
    IMAGES,
    LEASES,
    MEMORY,
    OPTIONS,
    ORDERS,
    PROGRESS,
    SESSIONS,
    STEPS,
    TRANSCRIPT,
    AnyText,
)

KEPT_BYTES = 4 * 1024 * 1024
"""Snapshots of earlier steps are kept, to be forked from, up to this size (before compression); of larger ones a
session has only its last."""

ADD_SESSION = insert(SESSIONS)
ADD_OPTIONS = insert(OPTIONS)
ADD_PROGRESS = insert(PROGRESS)
ADD_STEP = insert(STEPS).values(
    workspace=select(PROGRESS.c.workspace).where(PROGRESS.c.session_id == bindparam("p_session")).scalar_subquery()
)
"""Adds a step after it was counted in: it notes the snapshot that stands then."""
ADD_TRANSCRIPT = insert(TRANSCRIPT)
ADD_CALL = insert(CALLS)
ADD_IMAGE = insert(IMAGES)
ADD_BLOB = {
    SQLITE: sqlite_insert(BLOBS).on_conflict_do_nothing(),
    POSTGRESQL: postgresql_insert(BLOBS).on_conflict_do_nothing(),
}
SET_MEMORY = {
    dialect: (adding := insert_into(MEMORY)).on_conflict_do_update(
        index_elements=["session_id"],
        set_={name: adding.excluded[name] for name in ("tokens", "bytes", "plain_bytes")},
    )
    for dialect, insert_into in ((SQLITE, sqlite_insert), (POSTGRESQL, postgresql_insert))
}
ADD_GENERATION = insert(GENERATIONS)
ADD_LEASE = insert(LEASES)
ADD_ORDER = insert(ORDERS)

_NOT_LEASED_BY_ANOTHER = ~exists(
    select(LEASES.c.owner).where(LEASES.c.session_id == PROGRESS.c.session_id, LEASES.c.owner != bindparam("p_owner"))
)
"""The fence: whoever lost a session's lease can commit nothing more to it."""

ADVANCE = (
    update(PROGRESS)
    .where(
        PROGRESS.c.session_id == bindparam("p_session"),
        PROGRESS.c.steps == bindparam("p_step"),
        PROGRESS.c.tokens >= bindparam("p_start"),
        _NOT_LEASED_BY_ANOTHER,
    )
    .values(
        updated=bindparam("p_now"),
        title=case((PROGRESS.c.title == "", bindparam("p_title", type_=AnyText)), else_=PROGRESS.c.title),
        steps=PROGRESS.c.steps + 1,
        tokens=bindparam("p_end"),
        prompt_tokens=PROGRESS.c.prompt_tokens + bindparam("p_prompt"),
        generated_tokens=PROGRESS.c.generated_tokens + bindparam("p_generated"),
        thought_tokens=PROGRESS.c.thought_tokens + bindparam("p_thought"),
        seconds=PROGRESS.c.seconds + bindparam("p_seconds"),
        outcome=bindparam("p_outcome"),
        reason=bindparam("p_reason"),
        workspace=func.coalesce(bindparam("p_workspace"), PROGRESS.c.workspace),
    )
)
"""Counts a step in. No row is changed unless the session stands right before the step and its transcript reaches to
`p_start`: a compare-and-swap, so that of two processes that go on with one session the second is refused."""

SET_VERDICT = (
    update(PROGRESS)
    .where(PROGRESS.c.session_id == bindparam("p_session"), _NOT_LEASED_BY_ANOTHER)
    .values(updated=bindparam("p_now"), outcome=bindparam("p_outcome"), reason=bindparam("p_reason"))
)

OPEN_INTENTS = select(CALLS.c.seq, CALLS.c.call_id, CALLS.c.name, CALLS.c.arguments).where(
    CALLS.c.session_id == bindparam("p_session"),
    CALLS.c.step == bindparam("p_step"),
    CALLS.c.state == "intended",
)
UPDATE_CALL = update(CALLS).where(CALLS.c.seq == bindparam("p_seq"))
"""Sets the columns that are among its parameters."""

DROP_BLOB = delete(BLOBS).where(
    BLOBS.c.sha256 == bindparam("p_sha256"),
    ~exists(select(PROGRESS.c.session_id).where(PROGRESS.c.workspace == BLOBS.c.sha256)),
    or_(BLOBS.c.size > KEPT_BYTES, ~exists(select(STEPS.c.step).where(STEPS.c.workspace == BLOBS.c.sha256))),
    ~exists(select(IMAGES.c.step).where(IMAGES.c.sha256 == BLOBS.c.sha256)),
)
"""Deletes a snapshot that no session ends with, unless it is a small one of some step; or an image of no session."""

BLOB_NAMES = union(
    select(PROGRESS.c.workspace).where(PROGRESS.c.session_id == bindparam("p_session")),
    select(STEPS.c.workspace).where(STEPS.c.session_id == bindparam("p_session")),
    select(IMAGES.c.sha256).where(IMAGES.c.session_id == bindparam("p_session")),
)
"""Names of all snapshots and images that a session ever had, NULL and the empty name perhaps among them."""
IMAGES_OF = (
    select(IMAGES, BLOBS.c.data)
    .join(BLOBS, BLOBS.c.sha256 == IMAGES.c.sha256)
    .where(IMAGES.c.session_id == bindparam("p_session"))
    .order_by(IMAGES.c.seq)
)
WORKSPACE_NAME = select(PROGRESS.c.workspace).where(PROGRESS.c.session_id == bindparam("p_session"))
WORKSPACE = (
    select(BLOBS.c.data)
    .join(PROGRESS, PROGRESS.c.workspace == BLOBS.c.sha256)
    .where(PROGRESS.c.session_id == bindparam("p_session"))
)
POSITION = (
    select(PROGRESS.c.steps, PROGRESS.c.tokens).where(PROGRESS.c.session_id == bindparam("p_session")).with_for_update()
)
"""Keeps others from moving the session until the transaction ends; on SQLite the write lock does."""

DROP_GENERATIONS = delete(GENERATIONS).where(
    GENERATIONS.c.session_id == bindparam("p_session"), GENERATIONS.c.step >= bindparam("p_step")
)
"""Forgets a generation that was journaled and will not be taken up again."""
GENERATION = select(GENERATIONS).where(
    GENERATIONS.c.session_id == bindparam("p_session"), GENERATIONS.c.step == bindparam("p_step")
)
LEASE = select(LEASES).where(LEASES.c.session_id == bindparam("p_session")).with_for_update()
DROP_LEASE = delete(LEASES).where(LEASES.c.session_id == bindparam("p_session"), LEASES.c.owner == bindparam("p_owner"))
RENEW_LEASE = (
    update(LEASES)
    .where(LEASES.c.session_id == bindparam("p_session"), LEASES.c.owner == bindparam("p_owner"))
    .values(expires=bindparam("p_expires"))
)
ORDERS_OF = select(ORDERS).where(ORDERS.c.session_id == bindparam("p_session")).order_by(ORDERS.c.seq)
