"""Deliveries to many places and over a day, dead letters, API keys and secrets."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns to the deliveries, and the new tables."""
    op.add_column(
        "deliveries", sa.Column("receiver", sa.String(length=300), server_default=sa.text("''"), nullable=False)
    )
    op.add_column("deliveries", sa.Column("due_us", sa.BigInteger(), server_default="0", nullable=False))
    op.create_index(
        "ix_deliveries_receiver",
        "deliveries",
        ["custody", "receiver", "due_us"],
        sqlite_where=sa.text("custody > 0"),
    )
    op.create_index(
        "ix_invocations_caused_by", "invocations", ["caused_by"], sqlite_where=sa.text("caused_by IS NOT NULL")
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.String(length=36), nullable=False, comment="of the invocation or of the delivery"),
        sa.Column("kind", sa.SmallInteger(), nullable=False, comment="homing.v1.DeadLetterKind"),
        sa.Column("invocation_id", sa.String(length=36), nullable=False),
        sa.Column("function", sa.String(length=63), nullable=False),
        sa.Column("time_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["invocation_id"],
            ["invocations.id"],
            name=op.f("fk_dead_letters_invocation_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead_letters")),
    )
    op.create_index("ix_dead_letters_invocation_id", "dead_letters", ["invocation_id"])
    op.create_index("ix_dead_letters_time", "dead_letters", ["time_us", "id"])
    op.create_index("ix_dead_letters_function", "dead_letters", ["function", "time_us", "id"])
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False, comment="SHA-256 of the key"),
        sa.Column("definition", sa.LargeBinary(), nullable=False, comment="homing.v1.Key"),
        sa.Column("revoke_us", sa.BigInteger(), nullable=False, comment="0 while it is in force"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
    )
    op.create_index("ix_api_keys_name", "api_keys", ["name"], unique=True, sqlite_where=sa.text("revoke_us = 0"))
    op.create_table(
        "secrets",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False, comment="orders all changes of secrets"),
        sa.Column("value", sa.LargeBinary(), nullable=False, comment="encrypted"),
        sa.Column("create_us", sa.BigInteger(), nullable=False),
        sa.Column("update_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_secrets")),
    )
    op.create_table(
        "signing_keys",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("function", sa.String(length=63), nullable=False, comment="empty for the server's"),
        sa.Column("value", sa.LargeBinary(), nullable=False, comment="encrypted"),
        sa.Column("create_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signing_keys")),
    )
    op.create_index("ix_signing_keys_function", "signing_keys", ["function", "create_us"])
    counters = sa.table("counters", sa.column("name", sa.String), sa.column("value", sa.BigInteger))
    op.bulk_insert(counters, [{"name": name, "value": 0} for name in ("secrets_seq", "signing_seq")])


def downgrade() -> None:
    """Remove what was added."""
    op.execute("DELETE FROM counters WHERE name IN ('secrets_seq', 'signing_seq')")
    for table in ("signing_keys", "secrets", "api_keys", "dead_letters"):
        op.drop_table(table)
    op.drop_index("ix_invocations_caused_by", "invocations")
    op.drop_index("ix_deliveries_receiver", "deliveries")
    with op.batch_alter_table("deliveries") as deliveries:
        deliveries.drop_column("due_us")
        deliveries.drop_column("receiver")
