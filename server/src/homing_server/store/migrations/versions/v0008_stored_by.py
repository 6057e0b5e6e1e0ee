"""Who stored a body: what others may not refer to before an invocation of theirs does."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; of what is there nobody is known, and what no invocation refers to goes within an hour."""
    op.execute("ALTER TABLE blobs ADD COLUMN stored_by VARCHAR(255)")
    op.execute("CREATE INDEX ix_blobs_stored_by ON blobs (stored_by, create_us) WHERE stored_by IS NOT NULL")


def downgrade() -> None:
    """Forget who it was."""
    op.execute("DROP INDEX ix_blobs_stored_by")
    op.execute("ALTER TABLE blobs DROP COLUMN stored_by")
