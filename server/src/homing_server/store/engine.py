"""Opens the database, brings its schema up to date and hands out connections to read and to write."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, event, insert, make_url, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from homing_server.errors import unavailable
from homing_server.store import schema

_BUSY_TIMEOUT = 10_000
_READERS = 4


class Database:
    """A database file with one connection that writes and a few that read.

    SQLite lets one transaction write at a time, so writers queue here, where waiting costs nothing.
    """

    def __init__(self, url: str) -> None:
        """Prepare to open a database.

        :param url: ``sqlite:///PATH``.
        """
        path = make_url(url).database
        if not url.startswith("sqlite:///") or not path:
            raise ValueError("store_url must be sqlite:///PATH")
        self._path = Path(path)
        self._writer = self._engine(readers=0)
        self._reader = self._engine(readers=_READERS)
        self.identity = ""
        """Tells this database from every other; resume tokens carry it."""

    async def open(self) -> None:
        """Make the file where there is none and bring its schema up to date."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        async with self._writer.connect() as connection:
            await connection.run_sync(_migrate)
            await connection.commit()
        async with self.write() as connection:
            self.identity = await _identity(connection)

    async def close(self) -> None:
        """Close all connections."""
        await self._writer.dispose()
        await self._reader.dispose()

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that may write and is committed at the end, durably.

        :raises ApiError: UNAVAILABLE: the database could not be written.
        """
        try:
            async with self._writer.begin() as connection:
                yield connection
        except DBAPIError as error:
            if isinstance(error.orig, sqlite3.IntegrityError):
                raise
            raise unavailable("STORE_UNAVAILABLE", f"the store could not be written: {error.orig}") from error
        except PoolTimeoutError as error:
            raise unavailable("STORE_UNAVAILABLE", "the store could not be written: it is too busy") from error

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction that reads one consistent state.

        :raises ApiError: UNAVAILABLE: the database could not be read.
        """
        try:
            async with self._reader.begin() as connection:
                yield connection
        except DBAPIError as error:
            raise unavailable("STORE_UNAVAILABLE", f"the store could not be read: {error.orig}") from error
        except PoolTimeoutError as error:
            raise unavailable("STORE_UNAVAILABLE", "the store could not be read: it is too busy") from error

    def _engine(self, *, readers: int) -> AsyncEngine:
        engine = create_async_engine(
            f"sqlite+aiosqlite:///{self._path}",
            poolclass=AsyncAdaptedQueuePool,
            pool_size=readers or 1,
            max_overflow=0,
            pool_timeout=60,
            connect_args={"timeout": _BUSY_TIMEOUT / 1000},
        )

        @event.listens_for(engine.sync_engine, "connect")
        def _configure(connection: Any, _record: object) -> None:
            # SQLAlchemy begins transactions itself, below, instead of the driver.
            connection.isolation_level = None
            cursor = connection.cursor()
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = FULL")
            cursor.execute("PRAGMA foreign_keys = ON")
            cursor.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT}")
            cursor.execute("PRAGMA cache_size = -65536")
            cursor.close()

        @event.listens_for(engine.sync_engine, "begin")
        def _begin(connection: Connection) -> None:
            # A transaction that will write says so at once: turning a reading one into a writing one can fail.
            connection.exec_driver_sql("BEGIN" if readers else "BEGIN IMMEDIATE")

        return engine


def _migrate(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


async def _identity(connection: AsyncConnection) -> str:
    query = select(schema.properties.c.value).where(schema.properties.c.name == "identity")
    identity = (await connection.execute(query)).scalar_one_or_none()
    if identity is None:
        identity = uuid.uuid4().hex[:16]
        await connection.execute(insert(schema.properties).values(name="identity", value=identity))
    return identity
