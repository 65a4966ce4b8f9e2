"""The statements that every step uses, built once: SQLAlchemy then finds their SQL in its cache.

Parameters that are not the value of one column are named `p_…`.
"""

from __future__ import annotations

from sqlalchemy import and_, bindparam, case, delete, exists, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from g4agent.store.tables import BLOBS, CALLS, PROGRESS, SESSIONS, STEPS, TRANSCRIPT

ADD_SESSION = insert(SESSIONS)
ADD_PROGRESS = insert(PROGRESS)
ADD_STEP = insert(STEPS)
ADD_TRANSCRIPT = insert(TRANSCRIPT)
ADD_BLOB = upsert(BLOBS).on_conflict_do_nothing()

# True where the session stands exactly before step `p_step` and a change of the transcript from `p_start` on leaves no
# gap. It makes a commit a compare-and-swap: of two processes that go on with one session, the second is refused.
_STANDS_HERE = and_(
    PROGRESS.c.session_id == bindparam("p_session"),
    PROGRESS.c.steps == bindparam("p_step"),
    PROGRESS.c.tokens >= bindparam("p_start"),
)

ADVANCE = (
    update(PROGRESS)
    .where(_STANDS_HERE)
    .values(
        updated=bindparam("p_now"),
        title=case((PROGRESS.c.title == "", bindparam("p_title")), else_=PROGRESS.c.title),
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
"""Counts a step in; no row is changed where the session does not stand before it."""

EXTEND = update(PROGRESS).where(_STANDS_HERE).values(updated=bindparam("p_now"), tokens=bindparam("p_end"))
"""Changes the transcript in the middle of a step, under the same condition."""

SET_VERDICT = (
    update(PROGRESS)
    .where(PROGRESS.c.session_id == bindparam("p_session"))
    .values(updated=bindparam("p_now"), outcome=bindparam("p_outcome"), reason=bindparam("p_reason"))
)

_intent = upsert(CALLS)
ADD_INTENT = _intent.on_conflict_do_update(
    index_elements=[CALLS.c.session_id, CALLS.c.call_id],
    set_={"started": _intent.excluded.started},
    where=and_(
        CALLS.c.state == "intended",
        CALLS.c.name == _intent.excluded.name,
        CALLS.c.arguments == _intent.excluded.arguments,
    ),
)
"""Journals a call. A second try of the very same call is allowed; another call under its id changes no row."""

_done = upsert(CALLS)
ADD_CALL = _done.on_conflict_do_update(
    index_elements=[CALLS.c.session_id, CALLS.c.call_id],
    set_={column.name: _done.excluded[column.name] for column in CALLS.c if not column.primary_key},
)
"""Writes a call with its result, over its intent if there is one."""

DROP_BLOB = delete(BLOBS).where(
    BLOBS.c.sha256 == bindparam("p_sha256"),
    ~exists(select(PROGRESS.c.session_id).where(PROGRESS.c.workspace == BLOBS.c.sha256)),
)
"""Deletes a snapshot that no session has any more."""

WORKSPACE_NAME = select(PROGRESS.c.workspace).where(PROGRESS.c.session_id == bindparam("p_session"))
WORKSPACE = (
    select(BLOBS.c.data)
    .join(PROGRESS, PROGRESS.c.workspace == BLOBS.c.sha256)
    .where(PROGRESS.c.session_id == bindparam("p_session"))
)
POSITION = select(PROGRESS.c.steps, PROGRESS.c.tokens).where(PROGRESS.c.session_id == bindparam("p_session"))
