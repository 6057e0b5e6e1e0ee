"""Lists by the time of start or end."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add an index for each of them, with the order of lists in it."""
    for name in ("start", "end"):
        op.execute(
            f"CREATE INDEX ix_invocations_{name}_time ON invocations ({name}_us, create_us, id) WHERE {name}_us <> 0"
        )


def downgrade() -> None:
    """Remove them."""
    for name in ("start", "end"):
        op.execute(f"DROP INDEX ix_invocations_{name}_time")
