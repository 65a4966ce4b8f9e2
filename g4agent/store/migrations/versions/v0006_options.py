"""The model's options that a session was begun with."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """From version 5 to 6. Of old sessions they are not known."""
    op.create_table(
        "options",
        sa.Column("session_id", sa.String, nullable=False),
        sa.Column("model_options", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("session_id", name="pk_options"),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name="fk_options_session_id", ondelete="CASCADE"),
    )
