"""Call ids of the caller's choice."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column, and an index of those records that have one, with the order of lists in it."""
    op.add_column("invocations", sa.Column("call_id", sa.String(length=128), nullable=True))
    op.execute("CREATE INDEX ix_invocations_call_id ON invocations (call_id, create_us, id) WHERE call_id IS NOT NULL")


def downgrade() -> None:
    """Remove both."""
    op.drop_index("ix_invocations_call_id", "invocations")
    op.drop_column("invocations", "call_id")
