"""The second half of fencing tokens is called what it is: how often the broker has redelivered a message."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_TABLES = ("invocations", "deliveries")


def upgrade() -> None:
    """Rename the columns; their values stay."""
    for table in _TABLES:
        op.execute(f"ALTER TABLE {table} RENAME COLUMN delivery TO redelivery_count")


def downgrade() -> None:
    """Give them the old name."""
    for table in _TABLES:
        op.execute(f"ALTER TABLE {table} RENAME COLUMN redelivery_count TO delivery")
