"""The images that people and tools gave the model."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """From version 4 to 5. Old sessions have none."""
    op.create_table(
        "images",
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("session_id", sa.String, nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("call_id", sa.String),
        sa.Column("place", sa.Integer, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("tokens", sa.Integer, nullable=False),
        sa.Column("sha256", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_images"),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name="fk_images_session_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["sha256"], ["blobs.sha256"], name="fk_images_sha256"),
    )
    op.create_index("ix_images_session_id", "images", ["session_id"])
    op.create_index("ix_images_sha256", "images", ["sha256"])
