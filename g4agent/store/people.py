"""What people and running sessions tell each other by way of the store: questions about calls, and orders."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from sqlalchemy import RowMapping, delete, insert, select, update

from g4agent.errors import StoreError
from g4agent.messages import JsonValue
from g4agent.store import statements
from g4agent.store.database import Database
from g4agent.store.records import Order, OrderKind, Question
from g4agent.store.tables import ORDERS, QUESTIONS


class Questions:
    """Calls that wait for a person's word. A question outlives the process that asked it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ask(self, session_id: str, call_id: str, name: str, arguments: Mapping[str, JsonValue], reason: str) -> str:
        """Stores a question; returns its id, `<session>-<number>`."""
        with self._database.writing() as db:
            taken = db.execute(select(QUESTIONS.c.id).where(QUESTIONS.c.session_id == session_id)).scalars().all()
            last = max((int(id.rpartition("-")[2]) for id in taken), default=0)
            question = {
                "id": f"{session_id}-{last + 1}",
                "session_id": session_id,
                "created": datetime.now(UTC),
                "call_id": call_id,
                "name": name,
                "arguments": dict(arguments),
                "reason": reason,
                "approved": None,
                "answered": None,
                "comment": "",
                "used": False,
            }
            db.execute(insert(QUESTIONS), question)
        return str(question["id"])

    def answer(self, id: str, approved: bool, comment: str = "") -> Question:
        """Records a person's answer. Raises StoreError where there is no such question, or it was answered before."""
        with self._database.writing() as db:
            changed = db.execute(
                update(QUESTIONS)
                .where(QUESTIONS.c.id == id, QUESTIONS.c.approved.is_(None))
                .values(approved=approved, answered=datetime.now(UTC), comment=comment)
            ).rowcount
            row = db.execute(select(QUESTIONS).where(QUESTIONS.c.id == id)).mappings().one_or_none()
        if row is None:
            raise StoreError(f"There is no question {id!r}.", hint="List them with `g4agent approve --list`.")
        if not changed:
            raise StoreError(
                f"Question {id} was answered before: {'yes' if row['approved'] else 'no'}.",
                hint="An answer stands. Resume the session to have it acted upon.",
            )
        return _question(row)

    def of(self, session_id: str) -> list[Question]:
        """All questions of a session, in order."""
        return self._select(session_id)

    def open(self) -> list[Question]:
        """All questions that nobody has answered, the oldest first."""
        return self._select(None)

    def withdraw(self, session_id: str) -> None:
        """Deletes the session's questions that nobody has answered."""
        with self._database.writing() as db:
            db.execute(delete(QUESTIONS).where(QUESTIONS.c.session_id == session_id, QUESTIONS.c.approved.is_(None)))

    def mark_used(self, id: str) -> None:
        """Says that the answer was acted upon: it stands for that one call and for no later one."""
        with self._database.writing() as db:
            db.execute(update(QUESTIONS).where(QUESTIONS.c.id == id).values(used=True))

    def _select(self, session_id: str | None) -> list[Question]:
        chosen = QUESTIONS.c.approved.is_(None) if session_id is None else QUESTIONS.c.session_id == session_id
        with self._database.reading() as db:
            rows = db.execute(select(QUESTIONS).where(chosen).order_by(QUESTIONS.c.created, QUESTIONS.c.id)).mappings()
            return [_question(row) for row in rows]


class Orders:
    """Orders to sessions that run in some process. They are obeyed in order, and gone then."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def give(self, session_id: str, kind: OrderKind, text: str = "") -> None:
        """Leaves an order for whoever drives the session."""
        order = {"session_id": session_id, "created": datetime.now(UTC), "kind": kind, "text": text}
        with self._database.writing() as db:
            db.execute(insert(ORDERS), order)

    def take(self, session_id: str) -> list[Order]:
        """All orders so far, which are gone afterwards."""
        with self._database.reading() as db:
            rows = db.execute(statements.ORDERS_OF, {"p_session": session_id}).mappings().all()
        if rows:
            with self._database.writing() as db:
                taken = [row["seq"] for row in rows]
                db.execute(delete(ORDERS).where(ORDERS.c.session_id == session_id, ORDERS.c.seq.in_(taken)))
        return [Order(row["kind"], row["text"]) for row in rows]


def _question(row: RowMapping) -> Question:
    return Question(**{name: row[name] for name in Question.__dataclass_fields__})
