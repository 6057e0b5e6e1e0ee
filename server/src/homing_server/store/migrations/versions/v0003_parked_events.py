"""Events that could not be recorded are kept."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "parked_events",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False, comment="homing_core.wire.v1.EventBatch"),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("park_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_parked_events")),
    )


def downgrade() -> None:
    """Remove the table, and what it keeps."""
    op.drop_table("parked_events")
