"""What the keys and values of a session take."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """From version 3 to 4. Of old sessions nothing is known until their next step."""
    op.create_table(
        "memory",
        sa.Column("session_id", sa.String, nullable=False),
        sa.Column("tokens", sa.Integer, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("plain_bytes", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("session_id", name="pk_memory"),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name="fk_memory_session_id", ondelete="CASCADE"),
    )
