"""Generations and thoughts, repairs, leases, questions to people, and orders to a running session."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """From version 1 to 2."""
    op.add_column("steps", sa.Column("thoughts", sa.String, nullable=False, server_default=""))
    op.add_column("calls", sa.Column("repairs", sa.JSON))
    _create(
        "generations",
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("max_tokens", sa.Integer, nullable=False),
        sa.Column("thought_limit", sa.Integer),
        sa.Column("ids", sa.LargeBinary, nullable=False),
        sa.Column("logprobs", sa.LargeBinary, nullable=False),
        key=("session_id", "step"),
    )
    _create(
        "leases",
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("host", sa.String, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("process_start", sa.String, nullable=False),
        sa.Column("expires", sa.Float(53), nullable=False),
        key=("session_id",),
    )
    _create(
        "questions",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("created", sa.DateTime, nullable=False),
        sa.Column("call_id", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("arguments", sa.JSON, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("approved", sa.Boolean),
        sa.Column("answered", sa.DateTime),
        sa.Column("comment", sa.String, nullable=False),
        sa.Column("used", sa.Boolean, nullable=False),
        key=("id",),
    )
    op.create_index("ix_questions_session_id", "questions", ["session_id"])
    _create(
        "orders",
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("created", sa.DateTime, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("text", sa.String, nullable=False),
        key=("seq",),
    )
    op.create_index("ix_orders_session_id", "orders", ["session_id"])


def _create(table: str, *columns: sa.Column[object], key: tuple[str, ...]) -> None:
    """A table whose rows belong to a session and go with it."""
    op.create_table(
        table,
        sa.Column("session_id", sa.String, nullable=False),
        *columns,
        sa.PrimaryKeyConstraint(*key, name=f"pk_{table}"),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name=f"fk_{table}_session_id", ondelete="CASCADE"),
    )
