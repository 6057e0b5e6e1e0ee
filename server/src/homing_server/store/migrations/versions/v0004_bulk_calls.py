"""How far calls about many have come is kept."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "bulk_calls",
        sa.Column("caller", sa.String(length=255), nullable=False),
        sa.Column("request_id", sa.String(length=128), nullable=False),
        sa.Column("method", sa.String(length=32), nullable=False),
        sa.Column(
            "fingerprint",
            sa.LargeBinary(),
            nullable=False,
            comment="SHA-256 of the request that request_id stands for",
        ),
        sa.Column("begin_us", sa.BigInteger(), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False, comment="of the results that there were when it began"),
        sa.Column("turn", sa.Integer(), nullable=False, comment="the call that goes on; those before it are refused"),
        sa.Column("place_us", sa.BigInteger(), nullable=False, comment="with place_id: the last that was dealt with"),
        sa.Column("place_id", sa.String(length=36), nullable=False),
        sa.Column("counts", sa.Text(), nullable=False, comment="JSON: what was done so far, as the response has it"),
        sa.Column("done", sa.Boolean(), nullable=False),
        sa.Column("update_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("caller", "request_id", name=op.f("pk_bulk_calls")),
    )
    op.create_index("ix_bulk_calls_update", "bulk_calls", ["update_us"])


def downgrade() -> None:
    """Remove the table, and what it keeps."""
    op.drop_table("bulk_calls")
