"""The tables. Times are microseconds since the epoch, 0 where unset; messages are kept in protobuf's binary form."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    TextClause,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

CHANGE_SEQ = "change_seq"
"""Raised with every change of an invocation; its row is also the lock that orders the commits of writers."""
RESULT_SEQ = "result_seq"
"""Raised with every end of an invocation: the order in which results are watched."""
ACCEPTED = "accepted"
"""Counts every invocation that was ever recorded."""
REMOVED = "removed"
"""Counts every record that retention removed."""
EPOCH = "epoch"
"""Raised by every recorder that becomes active: the transactions of an earlier one are refused."""
SECRETS_SEQ = "secrets_seq"
"""Raised with every change of a secret."""
SIGNING_SEQ = "signing_seq"
"""Raised with every change of the signing keys."""

counters = Table(
    "counters",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

properties = Table(
    "properties",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", Text, nullable=False),
)

functions = Table(
    "functions",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("definition", LargeBinary, nullable=False, comment="homing.v1.Function"),
    Column("deleted", Boolean, nullable=False),
    Column("drained", Boolean, nullable=False, comment="whether the queues of a deleted function are gone"),
    Column("deleted_revision", BigInteger, nullable=False, server_default="0", comment="of the last deletion; or 0"),
    # Records up to these numbers may have been removed: a watch cannot resume from before them.
    Column("removed_result_seq", BigInteger, nullable=False, server_default="0"),
    Column("removed_change_seq", BigInteger, nullable=False, server_default="0"),
)

invocations = Table(
    "invocations",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("function", String(63), nullable=False),
    Column("function_revision", BigInteger, nullable=False, server_default="0", comment="when it was accepted"),
    Column("state", SmallInteger, nullable=False),
    Column("sync", Boolean, nullable=False),
    Column("caller", String(255), nullable=False),
    Column("request_id", String(128)),
    Column("call_id", String(128), comment="of the caller's choice; NULL where it is the id"),
    Column("fingerprint", LargeBinary, comment="SHA-256 of the request that request_id stands for"),
    Column("create_us", BigInteger, nullable=False),
    Column("start_us", BigInteger, nullable=False),
    Column("end_us", BigInteger, nullable=False),
    Column("due_us", BigInteger, nullable=False),
    Column("start_by_us", BigInteger, nullable=False, comment="create or schedule time plus max_age"),
    Column("generation", Integer, nullable=False),
    Column("redelivery_count", Integer, nullable=False),
    Column("custody", SmallInteger, nullable=False),
    Column("sent_us", BigInteger, nullable=False, comment="when custody became SENT, while it is"),
    Column("size", Integer, nullable=False, comment="bytes of the work message, roughly"),
    Column("spec", LargeBinary, nullable=False, comment="homing.v1.InvocationSpec without the payload's body"),
    Column("history", LargeBinary, nullable=False, comment="homing_core.wire.v1.History"),
    Column("traceparent", String(64), nullable=False),
    Column("rerun_of", String(36)),
    Column("caused_by", String(36)),
    Column("depth", Integer, nullable=False),
    Column("result_seq", BigInteger, comment="set once, at the end"),
    Column("change_seq", BigInteger, nullable=False),
    # What lists look for: the filters by function and state, in the order of acceptance.
    Index("ix_invocations_create", "create_us", "id"),
    Index("ix_invocations_function", "function", "create_us", "id"),
    Index("ix_invocations_state", "state", "create_us", "id"),
    Index("ix_invocations_function_state", "function", "state", "create_us", "id"),
    # Few that started, or ended, in a range of time. SQLite would take `> 0` for the lower bound of the range.
    Index("ix_invocations_start_time", "start_us", "create_us", "id", sqlite_where=text("start_us <> 0")),
    Index("ix_invocations_end_time", "end_us", "create_us", "id", sqlite_where=text("end_us <> 0")),
    Index("ix_invocations_rerun_of", "rerun_of", sqlite_where=text("rerun_of IS NOT NULL")),
    Index("ix_invocations_caused_by", "caused_by", sqlite_where=text("caused_by IS NOT NULL")),
    Index("ix_invocations_call_id", "call_id", "create_us", "id", sqlite_where=text("call_id IS NOT NULL")),
    # What the dispatcher looks for: all that has not ended, by who holds it.
    Index("ix_invocations_custody", "custody", "function", "due_us", "size", sqlite_where=text("custody > 0")),
    Index("ix_invocations_result_seq", "result_seq", unique=True, sqlite_where=text("result_seq IS NOT NULL")),
    # What watches of all changes read, and what retention looks for.
    Index("ix_invocations_change_seq", "change_seq", unique=True),
    Index("ix_invocations_end", "function", "end_us", sqlite_where=text("end_us > 0")),
    Index(
        "ix_invocations_request",
        "caller",
        "request_id",
        unique=True,
        sqlite_where=text("request_id IS NOT NULL"),
    ),
)

payloads = Table(
    "payloads",
    metadata,
    Column("invocation_id", String(36), ForeignKey("invocations.id", ondelete="CASCADE"), primary_key=True),
    Column("request", LargeBinary, nullable=False, comment="homing.v1.Payload"),
    Column("result", LargeBinary, comment="homing.v1.Result"),
)

labels = Table(
    "labels",
    metadata,
    Column("invocation_id", String(36), ForeignKey("invocations.id", ondelete="CASCADE"), primary_key=True),
    Column("key", String(63), primary_key=True),
    Column("value", String(255), nullable=False),
    Column("create_us", BigInteger, nullable=False),
    Index("ix_labels_key_value_create_us", "key", "value", "create_us", "invocation_id"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("invocation_id", String(36), ForeignKey("invocations.id", ondelete="CASCADE"), nullable=False),
    Column("kind", SmallInteger, nullable=False),
    Column("target", LargeBinary, nullable=False, comment="homing.v1.Callback, or homing.v1.Destination"),
    Column("state", SmallInteger, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("redelivery_count", Integer, nullable=False),
    Column("custody", SmallInteger, nullable=False),
    Column("sent_us", BigInteger, nullable=False),
    Column("create_us", BigInteger, nullable=False),
    Column("end_us", BigInteger, nullable=False),
    Column("history", LargeBinary, nullable=False, comment="homing_core.wire.v1.DeliveryHistory"),
    # Who gets it, as far as turns go: a scheme, host and port; `function:NAME`; `amqp:EXCHANGE`.
    Column("receiver", String(300), nullable=False, server_default=text("''")),
    Column("due_us", BigInteger, nullable=False, server_default="0"),
    Index("ix_deliveries_invocation_id", "invocation_id"),
    Index("ix_deliveries_custody", "custody", "sent_us", sqlite_where=text("custody > 0")),
    # What the dispatcher looks for: what is due, by receiver.
    Index("ix_deliveries_receiver", "custody", "receiver", "due_us", sqlite_where=text("custody > 0")),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", String(36), primary_key=True, comment="of the invocation or of the delivery"),
    Column("kind", SmallInteger, nullable=False, comment="homing.v1.DeadLetterKind"),
    Column("invocation_id", String(36), ForeignKey("invocations.id", ondelete="CASCADE"), nullable=False),
    Column("function", String(63), nullable=False),
    Column("time_us", BigInteger, nullable=False),
    Index("ix_dead_letters_invocation_id", "invocation_id"),
    Index("ix_dead_letters_time", "time_us", "id"),
    Index("ix_dead_letters_function", "function", "time_us", "id"),
)
"""Invocations and deliveries that came to nothing, until they are redriven or purged."""

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", String(63), nullable=False),
    Column("digest", LargeBinary, nullable=False, comment="SHA-256 of the key"),
    Column("definition", LargeBinary, nullable=False, comment="homing.v1.Key"),
    Column("revoke_us", BigInteger, nullable=False, comment="0 while it is in force"),
    Index("ix_api_keys_name", "name", unique=True, sqlite_where=text("revoke_us = 0")),
)

key_requests = Table(
    "key_requests",
    metadata,
    Column("digest", LargeBinary, primary_key=True, comment="of the caller and the request id, keyed"),
    Column("fingerprint", LargeBinary, nullable=False, comment="of the content, keyed"),
    Column("create_us", BigInteger, nullable=False),
    Index("ix_key_requests_create_us", "create_us"),
)
"""Calls that made API keys under a request id, for a day."""

secrets = Table(
    "secrets",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False, comment="orders all changes of secrets"),
    Column("value", LargeBinary, nullable=False, comment="encrypted"),
    Column("create_us", BigInteger, nullable=False),
    Column("update_us", BigInteger, nullable=False),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("function", String(63), nullable=False, comment="empty for the server's"),
    Column("value", LargeBinary, nullable=False, comment="encrypted"),
    Column("create_us", BigInteger, nullable=False),
    # The call that made it, where it had a request id.
    Column("request", LargeBinary, comment="of the caller and the request id, keyed"),
    Column("fingerprint", LargeBinary, comment="of the content, keyed"),
    Index("ix_signing_keys_function", "function", "create_us"),
    Index("ix_signing_keys_request", "request", unique=True, sqlite_where=text("request IS NOT NULL")),
)
"""The newest two of a function, or of the server, are active."""

bulk_calls = Table(
    "bulk_calls",
    metadata,
    Column("caller", String(255), primary_key=True),
    Column("request_id", String(128), primary_key=True),
    Column("method", String(32), nullable=False),
    Column("fingerprint", LargeBinary, nullable=False, comment="SHA-256 of the request that request_id stands for"),
    Column("begin_us", BigInteger, nullable=False),
    Column("last_seq", BigInteger, nullable=False, comment="of the results that there were when it began"),
    Column("turn", Integer, nullable=False, comment="the call that goes on; those before it are refused"),
    Column("place_us", BigInteger, nullable=False, comment="with place_id: the last that was dealt with"),
    Column("place_id", String(36), nullable=False),
    Column("counts", Text, nullable=False, comment="JSON: what was done so far, as the response has it"),
    Column("done", Boolean, nullable=False),
    Column("update_us", BigInteger, nullable=False),
    Index("ix_bulk_calls_update", "update_us"),
)
"""How far calls about many have come, by their request ids."""

tombstones = Table(
    "tombstones",
    metadata,
    Column("invocation_id", String(36), primary_key=True),
    Column("function", String(63), nullable=False),
    Column("generation", Integer, nullable=False, comment="its dispatches up to this one must not start"),
    Column("size", Integer, nullable=False, comment="bytes of the work message, roughly"),
    Column("create_us", BigInteger, nullable=False),
    Column("gone_us", BigInteger, nullable=False, comment="when its message was let go; 0 while it is at the broker"),
    Index("ix_tombstones_there", "function", "size", sqlite_where=text("gone_us = 0")),
)
"""Invocations that were stopped, or finished first, whose work messages may still be at the broker or come again."""

workers = Table(
    "workers",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("hello_us", BigInteger, nullable=False, comment="when it was last given a snapshot"),
)
"""Workers that may hold work: a stop is certain once each of them has obeyed or is gone."""

leaders = Table(
    "leaders",
    metadata,
    Column("role", String(32), primary_key=True),
    Column("server", String(255), nullable=False),
    Column("until_us", BigInteger, nullable=False),
)
"""Which server has a role that one alone may have."""

logs = Table(
    "logs",
    metadata,
    Column("invocation_id", String(36), primary_key=True),
    Column("number", Integer, primary_key=True, comment="1 for the first chunk"),
    Column("total_lines", Integer, nullable=False, comment="up to the end of this chunk"),
    Column("total_size", Integer, nullable=False, comment="bytes of text up to the end of this chunk"),
    Column("lines", LargeBinary, nullable=False, comment="homing_core.wire.v1.LogBatch"),
    Column("create_us", BigInteger, nullable=False),
    Column(
        "function", String(63), nullable=False, server_default=text("''"), comment="empty where a worker did not say it"
    ),
    Index("ix_logs_create_us", "create_us"),
    Index("ix_logs_function", "function", "create_us", "invocation_id", "number"),
)

blobs = Table(
    "blobs",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column("create_us", BigInteger, nullable=False),
    Column("stored_by", String(255), comment="the caller; NULL where it is none's"),
    Index("ix_blobs_create_us", "create_us"),
    Index("ix_blobs_stored_by", "stored_by", "create_us", sqlite_where=text("stored_by IS NOT NULL")),
)
"""Bodies that are kept in files, since they are too large for messages and rows."""

blob_uses = Table(
    "blob_uses",
    metadata,
    Column("invocation_id", String(36), primary_key=True),
    Column("blob_id", String(36), primary_key=True),
    Column("create_us", BigInteger, nullable=False),
    Index("ix_blob_uses_blob_id", "blob_id"),
)
"""Which invocations refer to a blob, by their payload or by a result. A blob that none refers to is removed."""


parked_events = Table(
    "parked_events",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("body", LargeBinary, nullable=False, comment="homing_core.wire.v1.EventBatch"),
    Column("why", Text, nullable=False),
    Column("park_us", BigInteger, nullable=False),
)
"""Events that could not be recorded, kept for a version that can."""


def ended(table: Table) -> TextClause:
    """Return the condition of the partial index by end, as :func:`live` that of the one by custody."""
    return text(f"{table.name}.end_us > 0")


def known(time: Column[int]) -> TextClause:
    """Return the condition of the partial index by a time, as :func:`live` that of the one by custody."""
    return text(f"{time.table.name}.{time.name} <> 0")


def live(table: Table) -> TextClause:
    """Return the condition of the partial index by custody: SQLite uses the index only in queries that repeat it."""
    return text(f"{table.name}.custody > 0")
