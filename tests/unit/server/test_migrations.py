"""A migrated database is what the schema says, forth and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect, select

import homing_server.store
from homing_server.store import schema

SCRIPTS = Path(homing_server.store.__file__).parent / "migrations"


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    engine = create_engine(f"sqlite:///{tmp_path / 'homing.db'}")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def config(connection: Connection) -> Config:
    made = Config()
    made.set_main_option("script_location", str(SCRIPTS))
    made.attributes["connection"] = connection
    return made


def test_migrated_database_is_what_the_schema_says(connection: Connection) -> None:
    command.upgrade(config(connection), "head")
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    assert compare_metadata(context, schema.metadata) == []


def test_partial_indexes_have_their_conditions(connection: Connection) -> None:
    """The comparison above does not look at them."""
    command.upgrade(config(connection), "head")
    wanted = {
        index.name: str(index.dialect_options["sqlite"]["where"])
        for table in schema.metadata.tables.values()
        for index in table.indexes
        if index.dialect_options["sqlite"]["where"] is not None
    }
    found = {
        index["name"]: str(index["dialect_options"]["sqlite_where"])
        for table in schema.metadata.tables
        for index in inspect(connection).get_indexes(table)
        if index.get("dialect_options", {}).get("sqlite_where") is not None
    }
    assert found == wanted
    assert "ix_invocations_custody" in wanted


def test_every_counter_begins_at_zero(connection: Connection) -> None:
    command.upgrade(config(connection), "head")
    counters = {row.name: row.value for row in connection.execute(select(schema.counters))}
    assert counters == dict.fromkeys(
        [
            schema.CHANGE_SEQ,
            schema.RESULT_SEQ,
            schema.ACCEPTED,
            schema.REMOVED,
            schema.EPOCH,
            schema.SECRETS_SEQ,
            schema.SIGNING_SEQ,
        ],
        0,
    )


def test_downgrade_removes_everything_and_upgrade_comes_back(connection: Connection) -> None:
    command.upgrade(config(connection), "head")
    command.downgrade(config(connection), "base")
    assert set(inspect(connection).get_table_names()) == {"alembic_version"}
    command.upgrade(config(connection), "head")
    assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []


def test_history_has_one_head(connection: Connection) -> None:
    assert len(ScriptDirectory.from_config(config(connection)).get_heads()) == 1
