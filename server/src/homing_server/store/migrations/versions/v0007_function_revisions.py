"""Work knows the revision that it was accepted under, and functions that of their last deletion."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns. What was accepted before counts as older than whatever is deleted from now on."""
    op.add_column("invocations", sa.Column("function_revision", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("functions", sa.Column("deleted_revision", sa.BigInteger, nullable=False, server_default="0"))
    op.execute("UPDATE functions SET deleted_revision = revision WHERE deleted")


def downgrade() -> None:
    """Drop them."""
    op.drop_column("functions", "deleted_revision")
    op.drop_column("invocations", "function_revision")
