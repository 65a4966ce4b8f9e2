"""A session's history up to some step, copied row by row into a new session."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, func, insert, literal, or_, select

from g4agent.errors import StoreError
from g4agent.store.tables import BLOBS, CALLS, GENERATIONS, IMAGES, OPTIONS, PROGRESS, SESSIONS, STEPS, TRANSCRIPT

_NEAR = 5  # steps named in an error


def copy_history(db: Connection, source: str, step: int | None, new: str, now: datetime) -> None:
    """Copies a session up to and including a step.

    At the last step, what is journaled of the next one comes along: a call that may have done its work is then not made
    again unasked. Questions, orders and the lease stay behind: an answer stands for one call only.

    Args:
        db: A transaction that writes.
        source: The session, which is there.
        step: Its last step to copy; None: the last one that is committed.
        new: Id of the copy.
        now: When it is made.
    """
    count = db.execute(select(PROGRESS.c.steps).where(PROGRESS.c.session_id == source)).scalar_one()
    if count == 0:
        raise StoreError(f"Session {source} has no step yet, so there is nothing to fork.", hint="Begin a new session.")
    last = count - 1 if step is None else step
    if not 0 <= last < count:
        raise StoreError(
            f"Session {source} has no step {last}.", hint=f"Its steps are 0 to {count - 1}; fork it at one of them."
        )
    _require_workspace(db, source, last)
    journaled = last + 1 if last == count - 1 else last
    _copy(db, SESSIONS, SESSIONS.c.id == source, id=new, created=now)
    _copy(db, OPTIONS, OPTIONS.c.session_id == source, session_id=new)
    _copy(db, PROGRESS, PROGRESS.c.session_id == source, session_id=new, updated=now, **_totals(db, source, last))
    made_in = func.coalesce(CALLS.c.made_in, CALLS.c.session_id)
    for table, end, changed in (
        (STEPS, last, {}),
        (TRANSCRIPT, last, {}),
        (IMAGES, last, {}),
        (GENERATIONS, journaled, {}),
        (CALLS, journaled, {"made_in": made_in}),
    ):
        _copy(db, table, table.c.session_id == source, table.c.step <= end, session_id=new, **changed)


def _copy(db: Connection, table: Table, *where: ColumnElement[bool], **changed: Any) -> None:
    """Copies rows inside the database, with some columns changed; rows that are numbered are numbered anew."""
    columns = [column for column in table.c if column.name != "seq"]
    values = [
        changed[c.name]
        if isinstance(changed.get(c.name), ColumnElement)
        else literal(changed[c.name], c.type)
        if c.name in changed
        else c
        for c in columns
    ]
    rows = select(*values).where(*where)
    if "seq" in table.c:
        rows = rows.order_by(table.c.seq)
    db.execute(insert(table).from_select([column.name for column in columns], rows))


def _totals(db: Connection, source: str, last: int) -> dict[str, Any]:
    """What the row of running totals was when the step was committed."""
    s, t = STEPS.c, TRANSCRIPT.c
    counted = ("prompt_tokens", "generated_tokens", "thought_tokens", "seconds")
    sums = select(*(func.sum(s[name]).label(name) for name in counted)).where(s.session_id == source, s.step <= last)
    end = select(s.outcome, s.reason, s.workspace, t.start, func.length(t.ids).label("bytes"))
    end = end.join(TRANSCRIPT, (t.session_id == s.session_id) & (t.step == s.step))
    row = db.execute(end.where(s.session_id == source, s.step == last)).mappings().one()
    return {
        **db.execute(sums).mappings().one(),
        "steps": last + 1,
        "tokens": row["start"] + row["bytes"] // 4,
        "outcome": row["outcome"],
        "reason": row["reason"],
        "workspace": row["workspace"],
    }


def _require_workspace(db: Connection, source: str, last: int) -> None:
    """Raises StoreError unless the workspace as of the step is there, or there was none."""
    kept = or_(STEPS.c.workspace.is_(None), STEPS.c.workspace.in_(select(BLOBS.c.sha256)))
    query = select(STEPS.c.step).where(STEPS.c.session_id == source, kept).order_by(func.abs(STEPS.c.step - last))
    nearest = db.execute(query.limit(_NEAR)).scalars().all()
    if last not in nearest:
        raise StoreError(
            f"The workspace of session {source} as of step {last} was not kept.",
            hint="Older snapshots are kept where they are small. Fork at one of the steps "
            f"{', '.join(str(step) for step in sorted(nearest))}.",
        )
