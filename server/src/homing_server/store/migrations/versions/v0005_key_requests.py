"""Keys are made under request ids."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table, and what signing keys remember of the calls that made them."""
    op.create_table(
        "key_requests",
        sa.Column("digest", sa.LargeBinary(), nullable=False, comment="of the caller and the request id, keyed"),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False, comment="of the content, keyed"),
        sa.Column("create_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_key_requests")),
    )
    op.create_index("ix_key_requests_create_us", "key_requests", ["create_us"])
    op.add_column(
        "signing_keys",
        sa.Column("request", sa.LargeBinary(), nullable=True, comment="of the caller and the request id, keyed"),
    )
    op.add_column(
        "signing_keys", sa.Column("fingerprint", sa.LargeBinary(), nullable=True, comment="of the content, keyed")
    )
    op.create_index(
        "ix_signing_keys_request",
        "signing_keys",
        ["request"],
        unique=True,
        sqlite_where=sa.text("request IS NOT NULL"),
    )


def downgrade() -> None:
    """Remove them, and what they remember."""
    op.drop_index("ix_signing_keys_request", table_name="signing_keys")
    with op.batch_alter_table("signing_keys", schema=None) as batch_op:
        batch_op.drop_column("fingerprint")
        batch_op.drop_column("request")
    op.drop_table("key_requests")
