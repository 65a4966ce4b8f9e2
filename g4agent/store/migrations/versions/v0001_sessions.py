"""Sessions, their progress, steps, calls, transcript and workspace snapshots."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Creates version 1. A migration never imports `tables.py`: that goes on to change."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute(f"PRAGMA application_id = {0x67346167}")
    op.create_table(
        "sessions",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("created", sa.DateTime, nullable=False),
        sa.Column("agent", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("fingerprint", sa.String, nullable=False),
        sa.Column("variant", sa.String, nullable=False),
        sa.Column("system", sa.String, nullable=False),
        sa.Column("thinking", sa.Boolean, nullable=False),
        sa.Column("sampling", sa.JSON, nullable=False),
        sa.Column("tools_hash", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
    )
    op.create_table(
        "blobs",
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_blobs"),
    )
    op.create_table(
        "progress",
        sa.Column("session_id", sa.String, nullable=False),
        sa.Column("updated", sa.DateTime, nullable=False),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("steps", sa.Integer, nullable=False),
        sa.Column("tokens", sa.Integer, nullable=False),
        sa.Column("prompt_tokens", sa.Integer, nullable=False),
        sa.Column("generated_tokens", sa.Integer, nullable=False),
        sa.Column("thought_tokens", sa.Integer, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("outcome", sa.String),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("workspace", sa.String),
        sa.PrimaryKeyConstraint("session_id", name="pk_progress"),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name="fk_progress_session_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["workspace"], ["blobs.sha256"], name="fk_progress_workspace"),
    )
    op.create_index("ix_progress_updated", "progress", ["updated"])
    op.create_index("ix_progress_workspace", "progress", ["workspace"])
    op.create_table(
        "steps",
        sa.Column("session_id", sa.String, nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("created", sa.DateTime, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("text", sa.String, nullable=False),
        sa.Column("prompt_tokens", sa.Integer, nullable=False),
        sa.Column("generated_tokens", sa.Integer, nullable=False),
        sa.Column("thought_tokens", sa.Integer, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("outcome", sa.String),
        sa.Column("reason", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("session_id", "step", name="pk_steps"),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name="fk_steps_session_id", ondelete="CASCADE"),
    )
    op.create_table(
        "calls",
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("session_id", sa.String, nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("call_id", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("arguments", sa.JSON, nullable=False),
        sa.Column("effect", sa.String),
        sa.Column("ran_in", sa.String),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("result", sa.JSON),
        sa.Column("error", sa.JSON),
        sa.Column("output", sa.String, nullable=False),
        sa.Column("started", sa.DateTime),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_calls"),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name="fk_calls_session_id", ondelete="CASCADE"),
    )
    op.create_index("ix_calls_session_id_step_position", "calls", ["session_id", "step", "position"])
    op.create_table(
        "transcript",
        sa.Column("session_id", sa.String, nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("start", sa.Integer, nullable=False),
        sa.Column("ids", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("session_id", "step", name="pk_transcript"),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name="fk_transcript_session_id", ondelete="CASCADE"),
    )
