"""Which workspace a step ended with, and which session made a call that was copied from it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """From version 2 to 3. Of old sessions only the last snapshot is there, and when it was made is not known."""
    op.add_column("steps", sa.Column("workspace", sa.String))
    op.create_index("ix_steps_workspace", "steps", ["workspace"])
    op.add_column("calls", sa.Column("made_in", sa.String))
    snapshot = "(SELECT p.workspace FROM progress p WHERE p.session_id = steps.session_id)"
    last = "(SELECT p.steps - 1 FROM progress p WHERE p.session_id = steps.session_id)"
    op.execute(f"UPDATE steps SET workspace = '' WHERE {snapshot} IS NOT NULL")
    op.execute(f"UPDATE steps SET workspace = {snapshot} WHERE step = {last}")
