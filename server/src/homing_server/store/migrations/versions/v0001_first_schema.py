"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make all tables and set the counters to zero."""
    counters = op.create_table(
        "counters",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_counters")),
    )
    op.create_table(
        "functions",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("definition", sa.LargeBinary(), nullable=False, comment="homing.v1.Function"),
        sa.Column("deleted", sa.Boolean(), nullable=False),
        sa.Column("drained", sa.Boolean(), nullable=False, comment="whether the queues of a deleted function are gone"),
        sa.Column("removed_result_seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("removed_change_seq", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_functions")),
    )
    op.create_table(
        "invocations",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("function", sa.String(length=63), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("sync", sa.Boolean(), nullable=False),
        sa.Column("caller", sa.String(length=255), nullable=False),
        sa.Column("request_id", sa.String(length=128), nullable=True),
        sa.Column(
            "fingerprint", sa.LargeBinary(), nullable=True, comment="SHA-256 of the request that request_id stands for"
        ),
        sa.Column("create_us", sa.BigInteger(), nullable=False),
        sa.Column("start_us", sa.BigInteger(), nullable=False),
        sa.Column("end_us", sa.BigInteger(), nullable=False),
        sa.Column("due_us", sa.BigInteger(), nullable=False),
        sa.Column("start_by_us", sa.BigInteger(), nullable=False, comment="create or schedule time plus max_age"),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("delivery", sa.Integer(), nullable=False),
        sa.Column("custody", sa.SmallInteger(), nullable=False),
        sa.Column("sent_us", sa.BigInteger(), nullable=False, comment="when custody became SENT"),
        sa.Column("size", sa.Integer(), nullable=False, comment="bytes of the work message, roughly"),
        sa.Column(
            "spec", sa.LargeBinary(), nullable=False, comment="homing.v1.InvocationSpec without the payload's body"
        ),
        sa.Column("history", sa.LargeBinary(), nullable=False, comment="homing_core.wire.v1.History"),
        sa.Column("traceparent", sa.String(length=64), nullable=False),
        sa.Column("rerun_of", sa.String(length=36), nullable=True),
        sa.Column("caused_by", sa.String(length=36), nullable=True),
        sa.Column("depth", sa.Integer(), nullable=False),
        sa.Column("result_seq", sa.BigInteger(), nullable=True, comment="set once, at the end"),
        sa.Column("change_seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invocations")),
    )
    with op.batch_alter_table("invocations", schema=None) as batch_op:
        batch_op.create_index("ix_invocations_change_seq", ["change_seq"], unique=True)
        batch_op.create_index("ix_invocations_create", ["create_us", "id"], unique=False)
        batch_op.create_index(
            "ix_invocations_custody",
            ["custody", "function", "due_us", "size"],
            unique=False,
            sqlite_where=sa.text("custody > 0"),
        )
        batch_op.create_index(
            "ix_invocations_end", ["function", "end_us"], unique=False, sqlite_where=sa.text("end_us > 0")
        )
        batch_op.create_index("ix_invocations_function", ["function", "create_us", "id"], unique=False)
        batch_op.create_index("ix_invocations_function_state", ["function", "state", "create_us", "id"], unique=False)
        batch_op.create_index(
            "ix_invocations_request",
            ["caller", "request_id"],
            unique=True,
            sqlite_where=sa.text("request_id IS NOT NULL"),
        )
        batch_op.create_index(
            "ix_invocations_rerun_of", ["rerun_of"], unique=False, sqlite_where=sa.text("rerun_of IS NOT NULL")
        )
        batch_op.create_index(
            "ix_invocations_result_seq", ["result_seq"], unique=True, sqlite_where=sa.text("result_seq IS NOT NULL")
        )
        batch_op.create_index("ix_invocations_state", ["state", "create_us", "id"], unique=False)

    op.create_table(
        "properties",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_properties")),
    )
    op.create_table(
        "tombstones",
        sa.Column("invocation_id", sa.String(length=36), nullable=False),
        sa.Column("function", sa.String(length=63), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False, comment="its hand-overs up to this one must not start"),
        sa.Column("size", sa.Integer(), nullable=False, comment="bytes of the work message, roughly"),
        sa.Column("create_us", sa.BigInteger(), nullable=False),
        sa.Column(
            "gone_us",
            sa.BigInteger(),
            nullable=False,
            comment="when its message was let go; 0 while it is at the broker",
        ),
        sa.PrimaryKeyConstraint("invocation_id", name=op.f("pk_tombstones")),
    )
    with op.batch_alter_table("tombstones", schema=None) as batch_op:
        batch_op.create_index(
            "ix_tombstones_there", ["function", "size"], unique=False, sqlite_where=sa.text("gone_us = 0")
        )
    op.create_table(
        "workers",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("hello_us", sa.BigInteger(), nullable=False, comment="when it was last given a snapshot"),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workers")),
    )
    op.create_table(
        "leaders",
        sa.Column("role", sa.String(length=32), nullable=False),
        sa.Column("server", sa.String(length=255), nullable=False),
        sa.Column("until_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("role", name=op.f("pk_leaders")),
    )
    op.create_table(
        "logs",
        sa.Column("invocation_id", sa.String(length=36), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False, comment="1 for the first chunk"),
        sa.Column("total_lines", sa.Integer(), nullable=False, comment="up to the end of this chunk"),
        sa.Column("total_size", sa.Integer(), nullable=False, comment="bytes of text up to the end of this chunk"),
        sa.Column("lines", sa.LargeBinary(), nullable=False, comment="homing_core.wire.v1.LogBatch"),
        sa.Column("create_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("invocation_id", "number", name=op.f("pk_logs")),
    )
    with op.batch_alter_table("logs", schema=None) as batch_op:
        batch_op.create_index("ix_logs_create_us", ["create_us"], unique=False)
    op.create_table(
        "blobs",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("create_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blobs")),
    )
    with op.batch_alter_table("blobs", schema=None) as batch_op:
        batch_op.create_index("ix_blobs_create_us", ["create_us"], unique=False)
    op.create_table(
        "blob_uses",
        sa.Column("invocation_id", sa.String(length=36), nullable=False),
        sa.Column("blob_id", sa.String(length=36), nullable=False),
        sa.Column("create_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("invocation_id", "blob_id", name=op.f("pk_blob_uses")),
    )
    with op.batch_alter_table("blob_uses", schema=None) as batch_op:
        batch_op.create_index("ix_blob_uses_blob_id", ["blob_id"], unique=False)
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("invocation_id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("target", sa.LargeBinary(), nullable=False, comment="homing.v1.Callback"),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("delivery", sa.Integer(), nullable=False),
        sa.Column("custody", sa.SmallInteger(), nullable=False),
        sa.Column("sent_us", sa.BigInteger(), nullable=False),
        sa.Column("create_us", sa.BigInteger(), nullable=False),
        sa.Column("end_us", sa.BigInteger(), nullable=False),
        sa.Column("history", sa.LargeBinary(), nullable=False, comment="homing_core.wire.v1.DeliveryHistory"),
        sa.ForeignKeyConstraint(
            ["invocation_id"], ["invocations.id"], name=op.f("fk_deliveries_invocation_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
    )
    with op.batch_alter_table("deliveries", schema=None) as batch_op:
        batch_op.create_index(
            "ix_deliveries_custody", ["custody", "sent_us"], unique=False, sqlite_where=sa.text("custody > 0")
        )
        batch_op.create_index("ix_deliveries_invocation_id", ["invocation_id"], unique=False)

    op.create_table(
        "labels",
        sa.Column("invocation_id", sa.String(length=36), nullable=False),
        sa.Column("key", sa.String(length=63), nullable=False),
        sa.Column("value", sa.String(length=255), nullable=False),
        sa.Column("create_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["invocation_id"], ["invocations.id"], name=op.f("fk_labels_invocation_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("invocation_id", "key", name=op.f("pk_labels")),
    )
    with op.batch_alter_table("labels", schema=None) as batch_op:
        batch_op.create_index(
            "ix_labels_key_value_create_us", ["key", "value", "create_us", "invocation_id"], unique=False
        )

    op.create_table(
        "payloads",
        sa.Column("invocation_id", sa.String(length=36), nullable=False),
        sa.Column("request", sa.LargeBinary(), nullable=False, comment="homing.v1.Payload"),
        sa.Column("result", sa.LargeBinary(), nullable=True, comment="homing.v1.Result"),
        sa.ForeignKeyConstraint(
            ["invocation_id"], ["invocations.id"], name=op.f("fk_payloads_invocation_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("invocation_id", name=op.f("pk_payloads")),
    )
    op.bulk_insert(
        counters, [{"name": name, "value": 0} for name in ("change_seq", "result_seq", "accepted", "removed", "epoch")]
    )


def downgrade() -> None:
    """Remove all tables."""
    for name in ("blob_uses", "blobs", "logs", "leaders", "workers", "tombstones"):
        op.drop_table(name)
    op.drop_table("payloads")
    with op.batch_alter_table("labels", schema=None) as batch_op:
        batch_op.drop_index("ix_labels_key_value_create_us")

    op.drop_table("labels")
    with op.batch_alter_table("deliveries", schema=None) as batch_op:
        batch_op.drop_index("ix_deliveries_invocation_id")
        batch_op.drop_index("ix_deliveries_custody", sqlite_where=sa.text("custody > 0"))

    op.drop_table("deliveries")
    op.drop_table("properties")
    with op.batch_alter_table("invocations", schema=None) as batch_op:
        batch_op.drop_index("ix_invocations_state")
        batch_op.drop_index("ix_invocations_result_seq", sqlite_where=sa.text("result_seq IS NOT NULL"))
        batch_op.drop_index("ix_invocations_rerun_of", sqlite_where=sa.text("rerun_of IS NOT NULL"))
        batch_op.drop_index("ix_invocations_request", sqlite_where=sa.text("request_id IS NOT NULL"))
        batch_op.drop_index("ix_invocations_function_state")
        batch_op.drop_index("ix_invocations_function")
        batch_op.drop_index("ix_invocations_custody", sqlite_where=sa.text("custody > 0"))
        batch_op.drop_index("ix_invocations_create")

    op.drop_table("invocations")
    op.drop_table("functions")
    op.drop_table("counters")
