"""Logs of functions, whatever invocations they served."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column, and an index with the order of tails in it."""
    op.add_column("logs", sa.Column("function", sa.String(length=63), nullable=False, server_default=sa.text("''")))
    op.create_index("ix_logs_function", "logs", ["function", "create_us", "invocation_id", "number"])


def downgrade() -> None:
    """Remove both."""
    op.drop_index("ix_logs_function", "logs")
    op.drop_column("logs", "function")
