"""The database file: opened, brought up to date, busy, locked."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from homing_server.errors import ApiError
from homing_server.store import engine
from homing_server.store.accept import Outcome
from homing_server.store.engine import Database, NewerStoreError, StoreUnavailableError
from support.store import (
    accept_all,
    make_draft,
    opened,
)


async def test_database_keeps_its_identity(tmp_path: Path) -> None:
    async with opened(tmp_path) as first:
        identity = first.identity
    async with opened(tmp_path) as second:
        assert second.identity == identity
    async with opened(tmp_path / "other") as other:
        assert other.identity != identity


OPEN = """
import asyncio, sys
from homing_server.store.engine import Database, NewerStoreError, StoreUnavailableError

async def main() -> None:
    database = Database(sys.argv[1])
    await database.open()
    print(database.identity)
    await database.close()

asyncio.run(main())
"""


async def test_several_servers_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new' / 'homing.db'}"
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", OPEN, url, stdout=asyncio.subprocess.PIPE)
        for _ in range(3)
    ]
    said = [(await process.communicate())[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(set(said)) == 1
    assert len(said[0]) == 16


async def test_migration_that_fails_in_the_middle_leaves_the_schema_as_it_was(tmp_path: Path) -> None:
    def schema_of(connection: Connection) -> list[str]:
        return list(connection.execute(text("SELECT sql FROM sqlite_master ORDER BY name")).scalars())

    async with opened(tmp_path) as database:
        with database.writing() as connection:
            # Step 7 can be taken from here, 8 cannot: its column is there.
            connection.execute(text("ALTER TABLE functions DROP COLUMN deleted_revision"))
            connection.execute(text("ALTER TABLE invocations DROP COLUMN function_revision"))
            connection.execute(text("UPDATE alembic_version SET version_num = '0006'"))
            before = schema_of(connection)
    again_opened = Database(f"sqlite:///{tmp_path / 'homing.db'}")
    try:
        with pytest.raises(StoreUnavailableError, match="duplicate column name: stored_by"):
            await again_opened.open()
        with again_opened.reading() as connection:
            assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == ["0006"]
            assert schema_of(connection) == before
    finally:
        await again_opened.close()


async def test_store_of_a_later_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        with database.writing() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    earlier = Database(f"sqlite:///{tmp_path / 'homing.db'}")
    try:
        with pytest.raises(NewerStoreError, match=r"schema 9999 of a later version of homing, this one knows \d{4} "):
            await earlier.open()
        with earlier.reading() as connection:
            assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "9999"
    finally:
        await earlier.close()


async def test_commits_are_durable(database: Database) -> None:
    with database.writing() as connection:
        assert (connection.execute(text("PRAGMA journal_mode"))).scalar_one() == "wal"
        assert (connection.execute(text("PRAGMA synchronous"))).scalar_one() == 2, "FULL"
        assert (connection.execute(text("PRAGMA foreign_keys"))).scalar_one() == 1


async def test_store_that_is_busy_is_unavailable_and_no_other_error(database: Database) -> None:
    """The recorder tries again after this error, and takes every other one for the events' own fault."""
    database._writer.pool._timeout = 0.05  # type: ignore[attr-defined]
    with database.writing(), pytest.raises(ApiError, match="could not be written: it is too busy") as caught:
        await accept_all(database, make_draft())
    assert caught.value.reason == "STORE_UNAVAILABLE"


async def test_file_that_another_server_keeps_locked_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_BUSY_TIMEOUT_MS", 50)
    async with opened(tmp_path) as one, opened(tmp_path, functions=[]) as other:
        with one.writing(), pytest.raises(ApiError, match="database is locked"):
            await accept_all(other, make_draft())
        assert [verdict.outcome for verdict in await accept_all(other, make_draft())] == [Outcome.ACCEPTED]
